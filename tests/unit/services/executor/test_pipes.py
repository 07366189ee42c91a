import os
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from config.settings import LogSettings, RedisSettings
from services.executor import messages
from services.executor.messages import (
    Assignment,
    ExecuteRun,
    FlowSource,
    ImportFindings,
    NotClaimed,
    Queued,
    RunClaimed,
    RunFinished,
    RunOvertaken,
)
from services.executor.pipes import PipeLines, from_line, to_line, write
from services.prefect_api.server_options import ServerOptions

NOW = datetime(2026, 11, 30, 10, 0, 15, 123456, tzinfo=UTC)
SAMPLES: dict[str, Any] = {
    "environment": {"A": "ü\n", "NOT_UNICODE": "\udcff"},
    "redis": RedisSettings(username="me"),
    "log": LogSettings(),
    "shelf": Path("/shelf-\udcff"),
    "queues": ("one", "two"),
    "sources": (FlowSource("/a-\udcff", "b.py:c"),),
    "mode": "fork",
    "generation": 3,
    "grace_seconds": 1.5,
    "lost_seconds": 20.0,
}


def assignment() -> Assignment:
    return Assignment(**{field.name: SAMPLES.get(field.name, field.name) for field in fields(Assignment)})


@pytest.mark.parametrize(
    "message",
    [
        assignment(),
        ExecuteRun("run", "me", queued=Queued("s", 1.25, free=False), options=ServerOptions(True, UUID(int=7), 2.5)),
        ImportFindings(FlowSource("/a", "b.py:c"), "why \udcff", ("f\udcff",), ("l", "m"), 0.5),
        RunOvertaken("run", None, NOW, "it was deleted", "cancel"),
        RunFinished(),
    ],
    ids=lambda message: type(message).__name__,
)
def test_a_message_arrives_as_it_was_sent(message):
    line = to_line(message)
    assert line.count(b"\n") == 1
    assert from_line(line) == message


def test_every_message_is_frozen():
    kinds: list[Any] = messages.ProcessMessage.__subclasses__()
    assert all(kind.__dataclass_params__.frozen for kind in kinds)


def test_messages_arrive_whole_however_they_are_cut():
    read, out = os.pipe()
    os.set_blocking(read, False)
    lines = PipeLines(read)
    claimed, gone = RunClaimed(1.0, NOW), NotClaimed("gone")
    line = to_line(claimed)
    os.write(out, line[:10])
    assert lines.read() == []
    os.write(out, line[10:] + to_line(gone)[:5])
    assert lines.read() == [claimed]
    os.write(out, to_line(gone)[5:])
    write(out, RunFinished())
    assert lines.read() == [gone, RunFinished()]
    assert not lines.ended
    os.close(out)
    assert lines.read() == []
    assert lines.ended
    os.close(read)


def test_nothing_there_is_not_the_end():
    read, out = os.pipe()
    os.set_blocking(read, False)
    lines = PipeLines(read)
    assert lines.read() == []
    assert not lines.ended
    os.close(read)
    os.close(out)
