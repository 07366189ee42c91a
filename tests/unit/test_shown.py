"""What is written for others is fed all characters that hide something, and none of them comes out."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest
from prefect.states import Crashed, Paused
from pydantic import BaseModel, ConfigDict

from config.settings import FileSettings
from config.sources import FilesSource
from events.action import RunDeployment
from services.common.metrics import Series
from services.executor.finalizing.finalizer import Finalizer
from services.executor.messages import FinalizeRun, RunRefused
from services.executor.process import flow_run_process
from services.executor.process.flow_loading import describe_failure
from services.executor.process_exits import EndReason, RunEnd
from services.listeners.files.archiving.sidecar import sidecar_text
from services.listeners.files.arriving.unready_files import shown
from services.listeners.files.folder import Folder
from services.operations.metrics_page import Kept, ProjectNames, render
from services.operations.readiness import judge
from services.prefect_api.client import PrefectApi
from services.prefect_api.dispatch import run_request
from services.prefect_api.run_calls import cancel_run
from services.prefect_api.run_view import RunView
from services.prefect_api.waiting import WaitingRuns
from sluice.errors import FileChanged, FileRefused, OverBudget, SignalRejected, TableRefused
from sluice.wait import Wait
from sluice.wait_result import UnfitError, WaitSpec, checked_description, parse_answer
from tests.support.hidden import HIDDEN, HOSTILE, hidden_in

NOW = datetime.now(UTC)


NESTED: dict[str, Any] = {HOSTILE: [HOSTILE, {HOSTILE: HOSTILE}]}


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
        body = options.get("json")
        self.sent.append(body)
        kind = body["state"]["type"] if body else "RUNNING"
        return {
            "status": "ACCEPT",
            "state": {"type": kind, "name": kind.title(), "timestamp": NOW.isoformat()},
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
    process._id, process.report = uuid4(), lambda message: said.append(cast(RunRefused, message).why)
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
