"""Every view of a command is fed all characters that hide something, and none of them comes out."""

from __future__ import annotations

import ast
import inspect
import json
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from config.logs import print_traceback
from events.dead_letter import DeadLetter
from events.errors import ConfigError, RejectedEvent, SluiceError
from services.cli import app, commands, dead, main, output, runs
from services.cli.pages import deployments
from services.cli.pages import event as event_page
from services.cli.pages import status as status_page
from services.deployments.plan import PlanStep
from services.listings.rows import letter_row
from services.store.events.event_history import EventHistory, Happening, RunHistory, RunState, VerdictRecord
from tests.support.hidden import HOSTILE, hidden_in

NOW = datetime.now(UTC)


STEPS = [PlanStep("change", HOSTILE, (HOSTILE,))]


NESTED: dict[str, Any] = {HOSTILE: [HOSTILE, {HOSTILE: HOSTILE}]}


def letter(raw: bytes) -> DeadLetter:
    return DeadLetter(
        id="1", kind="message", code=HOSTILE, reason=HOSTILE, source=HOSTILE, raw=raw, event_id=HOSTILE, rule=HOSTILE,
        first_failed=NOW, last_failed=NOW,
    )  # fmt: skip


def dead_letters(raw: bytes) -> None:
    found = letter_row(letter(raw)) | dead._raw(letter(raw))
    output.show_fields(found)
    output.show_json(found)
    output.show_rows([found], dead._COLUMNS, as_json=False)


def history() -> None:
    happening = Happening(at=NOW, id=HOSTILE, rule=HOSTILE, code=HOSTILE, text=HOSTILE)
    found = EventHistory(
        id=HOSTILE, source=HOSTILE, identity="i", position="1-1", listener=HOSTILE, rules_version=HOSTILE,
        event={"type": HOSTILE, "subject": HOSTILE, "time": HOSTILE, "data": NESTED},
        verdicts=[
            VerdictRecord(rule=HOSTILE, matched=False, failed=HOSTILE, detail=HOSTILE),
            VerdictRecord(rule=HOSTILE, matched=True, detail=HOSTILE),
        ],
        runs=[
            RunHistory(
                run_id="r", rule=HOSTILE, deployment=HOSTILE, created=NOW,
                states=[RunState(type="FAILED", name=HOSTILE, message=HOSTILE, at=NOW)],
            )
        ],
        signals=[happening], dead=[happening], notes=[happening],
    )  # fmt: skip
    event_page.show_event(found, [HOSTILE], {"r": HOSTILE})
    output.show_rows([found.row], ("id", "type", "source", "subject", "runs"), as_json=False)


def status() -> None:
    part = dict.fromkeys(
        ("announced", "in_flight", "done", "failed", "oldest_waiting", "last_full_scan", "path"), HOSTILE
    )
    parts = {
        f"files:{HOSTILE}": {
            **part,
            "degraded": HOSTILE,
            "waiting": {"count": 1, "for": NESTED},
            "uncovered": {"count": 1, "files": [HOSTILE]},
        },
        "executor": {"name": HOSTILE},
        "router": {"held": [{"rule": HOSTILE}]},
    }
    role = {"instances": [{"parts": parts}], "ready": False, "why": HOSTILE, "degraded": [HOSTILE], "restarts": 0}
    found = dict.fromkeys(("ready", "level", "project", "prefect_ui", "redis", "api", "home"), HOSTILE)
    reason = dict.fromkeys(("level", "message", "code", "remedy"), HOSTILE)
    waits = {"count": 1, "oldest_seconds": 1.0}
    status_page.show_status(
        {**found, "roles": {HOSTILE: role}, "reasons": [reason], "backlog": {HOSTILE: waits}, "canary": None}
    )


def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> str:
    sent = HOSTILE.replace("\0", "")
    (tmp_path / "sluice.yaml").write_text(
        "rules: [{name: a, on: '*', run: f/d, run_name: '{{ event.data }}', parameters: {p: '{{ event.data }}'}},"
        "{name: b, on: '*', subject: other, run: f/d}]"
    )
    event = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": sent}
    (tmp_path / "event.json").write_text(json.dumps(event))
    monkeypatch.setenv("SLUICE_CONFIG", str(tmp_path / "sluice.yaml"))
    result = CliRunner().invoke(app, ["rules", "test", str(tmp_path / "event.json"), *more])
    assert "run f/d" in result.output, result.output
    return result.output


def failing(error: Exception) -> None:
    commands.tell_error(cast(SluiceError, error), as_json=False)
    commands.tell_error(cast(SluiceError, error), as_json=True)


VIEWS: dict[str, Callable[[], None]] = {
    "show_json": lambda: output.show_json(NESTED),
    "show_yaml": lambda: output.show_yaml(NESTED),
    "show_json_line": lambda: output.show_json_line(NESTED),
    "say_json": lambda: output.say_json(NESTED),
    "show_rows": lambda: output.show_rows([{HOSTILE: HOSTILE, "b": NESTED}], [HOSTILE, "b"], as_json=False),
    "show_rows as JSON": lambda: output.show_rows([NESTED], [HOSTILE], as_json=True),
    "show_rows of nothing": lambda: output.show_rows([], [], as_json=False, empty=HOSTILE),
    "show_fields": lambda: output.show_fields({HOSTILE: HOSTILE, "b": NESTED, "c": Path(HOSTILE)}),
    "show_line": lambda: output.show_line(HOSTILE),
    "show_title": lambda: output.show_title(HOSTILE),
    "say": lambda: output.say(HOSTILE),
    "warn": lambda: output.warn(HOSTILE),
    "an error": lambda: failing(RejectedEvent(HOSTILE, HOSTILE)),
    "an error of the configuration": lambda: failing(ConfigError(HOSTILE)),
    "dead letters of text": lambda: dead_letters(HOSTILE.encode(errors="replace")),
    "dead letters of JSON": lambda: dead_letters(json.dumps(NESTED).encode()),
    "dead letters of bytes": lambda: dead_letters(b"\xff\x1b" + HOSTILE.encode(errors="surrogatepass")),
    "an event": history,
    "a run's log": lambda: runs._print_lines([{"time": NOW, "level": HOSTILE, "message": HOSTILE}]),
    "steps of a deployment": lambda: deployments.show_steps(STEPS, done=True, as_json=False),
    "steps as JSON": lambda: deployments.show_steps(STEPS, done=True, as_json=True),
    "the status": status,
}  # fmt: skip


@pytest.mark.parametrize("view", VIEWS)
def test_a_command_shows_all_that_is_hidden(view: str, capsys: pytest.CaptureFixture[str]) -> None:
    VIEWS[view]()
    out, err = capsys.readouterr()
    said = out + err
    assert "u202e" in said or view == "dead letters of bytes"
    assert not hidden_in(said, lines=True)
    assert "h\t" not in out


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_the_test_of_rules_shows_all_that_is_hidden(
    more: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = rules(tmp_path, monkeypatch, *more)
    assert "u202e" in said
    assert not hidden_in(said, lines=True)


def test_every_way_to_print_is_among_the_views() -> None:
    ways = {name for name, way in inspect.getmembers(output, inspect.isfunction) if way.__module__ == output.__name__}
    no_views = {"table_of", "clear_screen", "show_script", "show_progress", "size_text"}
    assert {name for name in ways if not name.startswith("_")} - no_views <= set(VIEWS)


def test_commands_print_by_no_other_way() -> None:
    """But for what a shell or a browser reads as it is."""
    found = set()
    for path in Path(output.__file__).parent.rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and path.name != "output.py":
                calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
                if any(isinstance(call, ast.Name) and call.id == "print" for call in calls):
                    found.add(f"{path.stem}.{function.name}")
    assert found <= {"installation.env", "installation.ui"}


FORGED = "\nerror: nothing is wrong"


@pytest.mark.parametrize("way", [output.say, output.warn, print_traceback])
def test_a_line_within_a_text_does_not_pass_for_a_line_of_ours(
    way: Callable[[Any], None], capsys: pytest.CaptureFixture[str]
) -> None:
    way(ValueError(f"a{FORGED}") if way is print_traceback else f"a{FORGED}")
    said = capsys.readouterr().err
    assert "    error: nothing is wrong" in said
    assert FORGED not in said


@pytest.mark.parametrize(
    "arguments",
    [
        [HOSTILE],
        ["rules", HOSTILE],
        [f"--{HOSTILE}"],
        ["rules", "test", "none.json", HOSTILE],
        ["up", "--home", "a", HOSTILE],
    ],
)
def test_a_command_that_is_none_is_shown_with_all_that_is_hidden(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["sluice", *(word.replace("\0", "") for word in arguments)])
    for module in (sys, threading):
        monkeypatch.setattr(module, "excepthook", module.excepthook)  # as it was, after the test
    with pytest.raises(SystemExit) as ended:
        main()
    said = "".join(capsys.readouterr())
    assert ended.value.code == 2
    assert "u202e" in said
    assert not hidden_in(said, lines=True)
    assert "\n<h" not in said


def test_json_for_programs_loses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_json(NESTED)
    assert json.loads(capsys.readouterr().out) == NESTED
