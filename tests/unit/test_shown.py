"""Every view is fed all characters that hide something, and none of them comes out."""

from __future__ import annotations

import ast
import asyncio
import inspect
import io
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest
import structlog
from prefect.states import Crashed, Paused
from pydantic import BaseModel, ConfigDict
from typer.testing import CliRunner

from config.logs import configure_logging, print_traceback, show_handlers_safely, show_uncaught
from config.settings import FileSettings, LogSettings
from config.sources import FilesSource
from events.action import RunDeployment
from events.dead_letter import DeadLetter
from events.errors import ConfigError, RejectedEvent, SluiceError
from services.cli import app, commands, dead, main, output, runs
from services.cli.pages import deployments
from services.cli.pages import event as event_page
from services.cli.pages import status as status_page
from services.common.metrics import Series
from services.deployments.plan import PlanStep
from services.executor.finalizing.finalizer import Finalizer
from services.executor.messages import FinalizeRun, RunRefused
from services.executor.process import flow_run_process
from services.executor.process.flow_loading import describe_failure
from services.executor.process_exits import EndReason, RunEnd
from services.listeners.files.archiving.sidecar import sidecar_text
from services.listeners.files.arriving.unready_files import shown
from services.listeners.files.folder import Folder
from services.listings.rows import letter_row
from services.operations.metrics_page import Kept, ProjectNames, render
from services.operations.readiness import judge
from services.prefect_api.client import PrefectApi
from services.prefect_api.dispatch import run_request
from services.prefect_api.run_calls import cancel_run
from services.prefect_api.run_view import RunView
from services.prefect_api.waiting import WaitingRuns
from services.store.events.event_history import EventHistory, Happening, RunHistory, RunState, VerdictRecord
from sluice.errors import FileChanged, FileRefused, OverBudget, SignalRejected, TableRefused
from sluice.wait import Wait
from sluice.wait_result import UnfitError, WaitSpec, checked_description, parse_answer
from tests.support.hidden import HIDDEN, HOSTILE, hidden_in

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
    assert {name for name in ways if not name.startswith("_")} - {
        "table_of",
        "clear_screen",
        "show_script",
        "show_progress",
    } <= set(VIEWS)


def test_commands_print_by_no_other_way() -> None:
    """But for what a shell, a browser or systemd reads as it is, and the counts of what is under way."""
    found = set()
    for path in Path(output.__file__).parent.rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and path.name != "output.py":
                calls = [node.func for node in ast.walk(function) if isinstance(node, ast.Call)]
                if any(isinstance(call, ast.Name) and call.id == "print" for call in calls):
                    found.add(f"{path.stem}.{function.name}")
    for_programs = {"installation.env", "installation.ui", "installation.look", "service.install"}
    assert found <= for_programs | {"dead._replay_all", "events._progress", "events.tell"}


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


def test_what_nothing_catches_is_shown_with_all_that_is_hidden(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ValueError(f"{HOSTILE} redis://:s3cret@localhost")

    for module in (sys, threading):
        monkeypatch.setattr(module, "excepthook", module.excepthook)
    show_uncaught()
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    try:
        fail()
    except ValueError as error:
        sys.excepthook(ValueError, error, None)
    said = capsys.readouterr().err
    assert said.count("u202e") == 2
    assert not hidden_in(said, lines=True)
    assert "s3cret" not in said


def test_what_a_flow_logs_reaches_the_terminal_with_all_that_is_hidden() -> None:
    stream = io.StringIO()
    log = logging.getLogger("a.flow")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("flow: %(message)s"))
    log.addHandler(handler)
    try:
        show_handlers_safely()
        show_handlers_safely()
        log.warning("read %s%s", HOSTILE, FORGED)
    finally:
        log.removeHandler(handler)
    said = stream.getvalue()
    assert said.startswith("flow: read h")
    assert "u202e" in said
    assert not hidden_in(said, lines=True)
    assert FORGED not in said


def test_json_for_programs_loses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_json(NESTED)
    assert json.loads(capsys.readouterr().out) == NESTED


@pytest.fixture
def configured() -> Iterator[Callable[[str], Any]]:
    before = structlog.get_config()
    formatter = logging.lastResort.formatter if logging.lastResort else None

    def configure(form: str) -> Any:
        configure_logging(LogSettings(format=cast(Any, form)))
        return structlog.wrap_logger(
            structlog.PrintLogger(),
            processors=structlog.get_config()["processors"],
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        )

    yield configure
    structlog.configure(**before)
    if logging.lastResort:
        logging.lastResort.setFormatter(formatter)


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_line_of_log_shows_all_that_is_hidden(
    form: str, configured: Callable[[str], Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    log = configured(form)
    log.info(HOSTILE, **{HOSTILE: HOSTILE}, nested=NESTED, path=Path(HOSTILE), error=ValueError(HOSTILE))
    log.info("a\nb", raw=HOSTILE.encode(errors="replace"))
    try:
        raise ValueError(HOSTILE)  # noqa: TRY301 - there is nothing to abstract
    except ValueError:
        log.exception("failed", stack_info=True)
    said = "".join(capsys.readouterr())
    assert "ValueError: h" in said
    colours = ("\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[35m", "\x1b[36m", "\x1b[32m\x1b[1m")
    for colour in colours if form == "console" else ():
        said = said.replace(colour, "")
    assert not hidden_in(said, lines=True)
    assert "a\nb" not in said


def test_a_library_that_logs_shows_all_that_is_hidden(configured: Callable[[str], Any]) -> None:
    configured("json")
    handler = logging.lastResort
    assert handler is not None
    try:
        raise ValueError(HOSTILE)  # noqa: TRY301 - there is nothing to abstract
    except ValueError as error:
        record = logging.LogRecord("x", logging.ERROR, "x", 1, "%s", (HOSTILE,), (ValueError, error, None))
    assert not hidden_in(handler.format(record), lines=True)


def test_a_sidecar_shows_all_that_is_hidden() -> None:
    folder = Folder.of("inbox", FilesSource(path=Path("/in")), FileSettings())
    names = ("run_id", "url", "rule", "deployment", "state_type", "state_name", "message")
    finished = {"runs": [dict.fromkeys(names, HOSTILE)], "dead": [{"rule": HOSTILE, "reason": HOSTILE}]}
    path = HOSTILE.encode(errors="surrogateescape" if "\udc80" in HOSTILE else "strict")
    text = sidecar_text(folder, path, HOSTILE, finished, at=NOW).decode()
    assert not hidden_in(text, lines=True)
    assert not hidden_in(shown(path))
    assert json.loads(text)["event_id"] == HOSTILE


def test_names_and_tags_of_runs_show_all_that_is_hidden() -> None:
    for character in HIDDEN:  # one by one, because both are cut
        hostile = f"a{character}b"
        action = RunDeployment.model_validate(
            {"rule": hostile, "identities": (hostile,), "deployment": "f/d", "run_name": hostile, "tags": (hostile,)}
        )
        body = run_request(action, source=hostile, file=None, has_work_pool=False, max_parameter_bytes=1000)
        assert not hidden_in("".join([body["name"], *body["tags"]]))


class Recorder:
    """Stands where Prefect's API does, and keeps what it is sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    async def request(self, _method: str, _path: str, **options: Any) -> dict[str, Any]:
        self.sent.append(options.get("json"))
        return {
            "status": "ACCEPT",
            "state": {"type": "RUNNING", "name": "Running", "timestamp": NOW.isoformat()},
            "details": {},
        }


def test_messages_of_states_show_all_that_is_hidden() -> None:
    api = Recorder()
    run = cast(RunView, SimpleNamespace(run_id="r", suspended=True))
    waiting = WaitingRuns(cast(PrefectApi, api))

    async def send() -> None:
        await cancel_run(cast(PrefectApi, api), "r", reason=HOSTILE)
        await waiting.go_on(run, HOSTILE)
        await waiting.cancel(run, HOSTILE)

    asyncio.run(send())
    messages = [body["state"]["message"] for body in api.sent if body]
    assert len(messages) == 3
    assert not hidden_in("".join(messages), lines=True)


def test_what_the_executor_says_of_a_run_shows_all_that_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(
        flow_run_process, "propose_state_sync", lambda _client, state, **_options: said.append(cast(str, state.message))
    )
    process = object.__new__(flow_run_process.FlowRunProcess)
    process._id, process._report = uuid4(), lambda message: said.append(cast(RunRefused, message).why)
    process._refuse(cast(Any, None), Crashed(message=HOSTILE))
    said.append(describe_failure(ValueError(HOSTILE)))
    task = FinalizeRun(str(uuid4()), RunEnd(EndReason.CRASHED, HOSTILE))
    said.append(Finalizer(task, environment={}, shelf=Path("/"))._message)
    assert len(said) == 4
    assert all("u202e" in message for message in said)
    assert not hidden_in("".join(said))


def test_what_the_client_library_raises_shows_all_that_is_hidden() -> None:
    class Strict(BaseModel):
        model_config = ConfigDict(extra="forbid")

    with pytest.raises(UnfitError) as unfit:
        parse_answer(Strict, {HOSTILE: 1})
    raised: list[Exception] = [unfit.value, SignalRejected(by=HOSTILE, reason=HOSTILE)]
    raised += [kind(HOSTILE) for kind in (FileRefused, FileChanged, OverBudget, TableRefused)]
    for error in raised:
        assert "u202e" in str(error)
        assert not hidden_in(str(error))


async def test_the_message_of_a_wait_shows_all_that_is_hidden() -> None:
    said: list[str] = []

    class Run:
        async def keep_form(self, _pause: str, _model: object, message: str) -> dict[str, Any]:
            said.append(message)
            return {}

        async def set_tags(self, _tags: list[str]) -> None:
            return

        async def pause(self, pause: str, *, message: str, **_options: Any) -> tuple[Any, None]:
            said.append(message)
            return Paused(pause_key=pause), None

    log = logging.getLogger("a.wait")
    log.setLevel(logging.INFO)
    log.addFilter(lambda record: said.append(record.getMessage()) or True)
    spec = WaitSpec("n", (HOSTILE,), need_all=False, model=None, timeout_seconds=1, remind_seconds=None, suspend=True,
                    description=checked_description(HOSTILE), poll_seconds=1)  # fmt: skip
    wait = Wait(run=cast(Any, Run()), run_id=uuid4(), spec=spec, occurrence=1, log=log, complaint=HOSTILE)
    wait._entry = 1
    await wait._enter([])
    assert len(said) == 3
    assert all("u202e" in message for message in said)
    assert not hidden_in(said[0], lines=True)  # a description has paragraphs
    assert not hidden_in("".join(said[1:]))


def test_metrics_show_all_that_is_hidden() -> None:
    report = {
        "role": HOSTILE, "instance": HOSTILE, "ready": True, "degraded": [], "silent_seconds": None,
        "at": NOW.timestamp(), "started": NOW.isoformat(), "pid": 1,
        "parts": {f"files:{HOSTILE}": {"path": HOSTILE, "done": 1}},
    }  # fmt: skip
    totals = [(Series("sluice_messages_received_total", {"listener": HOSTILE}), 1.0)]
    kept = Kept(totals, [("sluice_dead_letters", (HOSTILE,), 1.0)])
    text = render(judge([report], expected=[HOSTILE]), kept, ProjectNames([HOSTILE], [HOSTILE])).decode()
    assert text.count("u202e") >= 5
    assert not hidden_in(text, lines=True)
