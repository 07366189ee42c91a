"""What the executor's processes say to each other arrives as it was said."""

from dataclasses import FrozenInstanceError, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_type_hints
from uuid import UUID

import pytest

from config.settings import LogSettings, RedisSettings
from services.executor import messages
from services.executor.messages import (
    ExecuteRun,
    FlowSource,
    ImportFindings,
    ProcessMessage,
    Queued,
    RunOvertaken,
    Stop,
)
from services.executor.pipes import from_line, to_line
from services.executor.process_exits import EndReason, RunEnd
from services.prefect_api.server_options import ServerOptions

NOW = datetime(2026, 11, 30, 10, 0, 15, 123456, tzinfo=UTC)
KINDS: list[Any] = sorted(ProcessMessage.__subclasses__(), key=lambda kind: kind.__name__)
SAMPLES: dict[str, Any] = {
    "environment": {"A": "ü\n", "NOT_UNICODE": "\udcff"},
    "redis": RedisSettings(username="me"),
    "log": LogSettings(),
    "shelf": Path("/shelf-\udcff"),
    "queues": ("one", "two"),
    "sources": (FlowSource("/a-\udcff", "b.py:c"),),
    "source": FlowSource("/a", "b.py:c"),
    "mode": "fork",
    "intent": "reschedule",
    "end": RunEnd(EndReason.CRASHED, "it died: \u2028 ü"),
    "options": ServerOptions(True, UUID(int=7), 2.5),
    "queued": Queued("s", 1.25, free=False),
    "problem": "why \udcff",
    "files": ("f\udcff",),
    "libraries": ("l", "m"),
    "packages": ("p",),
}
BY_TYPE: dict[Any, Any] = {str: "text\n", int: 3, float: 1.5, bool: True, datetime: NOW}


def sample(kind: Any) -> Any:
    """A message of the kind, with a value in each field."""
    hints = get_type_hints(kind)
    given = {}
    for field in fields(kind):
        hint = hints[field.name]
        if hint in BY_TYPE or field.name not in SAMPLES:
            given[field.name] = next(BY_TYPE[one] for one in (hint, *getattr(hint, "__args__", ())) if one in BY_TYPE)
        else:
            given[field.name] = SAMPLES[field.name]
    return kind(**given)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_message_of_every_kind_arrives_as_it_was_sent(kind: Any) -> None:
    message = sample(kind)
    line = to_line(message)
    assert line.count(b"\n") == 1
    assert from_line(line) == message


@pytest.mark.parametrize(
    "message",
    [
        ExecuteRun("run", "me"),
        ImportFindings(FlowSource("/a", "b.py:c"), None, (), ()),
        RunOvertaken("run", None, NOW, "it was deleted", "cancel"),
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_a_message_does_not_say_stays_unsaid(message: ProcessMessage) -> None:
    assert from_line(to_line(message)) == message


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_no_message_can_be_changed(kind: Any) -> None:
    message = sample(kind)
    assert kind.__dataclass_params__.frozen
    for field in fields(kind):
        with pytest.raises(FrozenInstanceError):
            setattr(message, field.name, None)


@pytest.mark.parametrize("line", [b"", b"Stop\n", b"NoSuchMessage {}\n", b"StartSlot {}\n", b"\xff {}\n"])
def test_what_is_no_message_is_refused(line: bytes) -> None:
    with pytest.raises((ValueError, KeyError)):
        from_line(line)


@pytest.mark.parametrize(
    ("entrypoint", "file"),
    [("flows/a.py:main", "/p/flows/a.py"), ("a.py", "/p/a.py"), ("./a:b.py:main", "/p/a:b.py")],
)
def test_the_file_of_a_flow_is_its_entrypoint_without_the_function(entrypoint: str, file: str) -> None:
    assert FlowSource("/p", entrypoint).file == file


def test_a_message_is_sent_under_the_name_of_its_class() -> None:
    assert to_line(Stop()) == b"Stop {}\n"
    assert all(getattr(messages, kind.__name__) is kind for kind in KINDS)
