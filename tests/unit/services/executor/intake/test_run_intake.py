"""The intake, between what it hears and the queue."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any, cast
from unittest.mock import Mock

import pytest

from config.runs import ExecutorSettings
from events.errors import TransientError
from services.executor.intake import run_intake
from services.executor.intake.run_intake import RunIntake
from services.executor.job_enqueuer import JobEnqueuer
from services.prefect_api import events
from services.prefect_api.client import PrefectApi
from services.prefect_api.events import Connected
from services.prefect_api.runs import StateChange
from services.store.runs.registered_files import RegisteredFile, RegisteredFiles
from tests.support.waiting import eventually

MANY = 300


FILE = RegisteredFile("/project", "flows/flow.py:flow")
DEPLOYMENT = {"id": "d", "name": "default", "flow_id": "f", "path": FILE.path, "entrypoint": FILE.entrypoint}


class Prefect(PrefectApi):
    """Prefect, which has told of many runs and takes its time to answer.

    ``away``: not when asked for a deployment; ``lists``: at once when asked for all of them.
    """

    def __init__(self, *, away: bool, lists: bool = False) -> None:
        self.away = away
        self.lists = lists
        self.read_calls = 0
        self.listed = 0
        self.polled = 0

    @property
    def url(self) -> str:
        return "http://prefect/api"

    async def request(self, method: str, path: str, *, once: bool = False, **body: Any) -> Any:
        match path:
            case "/deployments/d":
                self.read_calls += 1
                if self.away:
                    raise TransientError("out of reach")
                await asyncio.sleep(0.2)  # what a call takes
                return DEPLOYMENT
            case "/flows/f":
                return {"name": "flow"}
            case "/deployments/filter":
                self.listed += 1
                await eventually(lambda: asyncio.sleep(0, self.lists or (self.away and self.read_calls)))
                return [DEPLOYMENT]
            case "/flows/filter":
                return [{"id": "f", "name": "flow"}]
            case "/deployments/get_scheduled_flow_runs":
                self.polled += 1
                return [_due(number) for number in range(MANY)]
        raise AssertionError(path)


def _due(number: int) -> dict[str, Any]:
    return {
        "id": f"run-{number}",
        "state_id": f"state-{number}",
        "state_name": "Scheduled",
        "deployment_id": "d",
        "next_scheduled_start_time": datetime.now(UTC).isoformat(),
        "empirical_policy": {},
    }


class Queue:
    """Takes the place of the RQ queues."""

    def __init__(self) -> None:
        self.queued: list[str] = []
        self.registered_anew = False

    async def put(self, queue_name: str, run_id: str, state_id: str, *, again: bool = False) -> bool:
        self.queued.append(run_id)
        return True

    async def call(self, work: Callable[[], Any]) -> Any:
        """Whether something was registered anew."""
        found, self.registered_anew = self.registered_anew, False
        return found


class Registered(RegisteredFiles):
    """Every deployment is the project's own."""

    def __init__(self) -> None:
        super().__init__(Mock())

    def get(self, deployment_id: str) -> RegisteredFile:
        return FILE


@pytest.fixture(autouse=True)
def _told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def changes(**_: object) -> AsyncIterator[StateChange | Connected]:
        yield Connected()
        for number in range(MANY):
            yield StateChange(
                f"run-{number}", f"state-{number}", "SCHEDULED", "Scheduled", datetime.now(UTC), deployment_id="d"
            )
        await asyncio.Event().wait()

    async def at_once(_url: str, **_: object) -> None: ...

    monkeypatch.setattr(events, "state_changes", changes)
    monkeypatch.setattr(run_intake, "prefect_answers", at_once)


def intake_of(prefect: Prefect, queue: Queue, **settings: Any) -> RunIntake:
    pool = Mock(**{"slots.running": {}})
    return RunIntake(
        prefect=prefect,
        enqueuer=cast(JobEnqueuer, queue),
        registered=Registered(),
        pool=pool,
        settings=ExecutorSettings(**settings),
    )


async def test_a_deployment_is_asked_for_once_however_many_of_its_runs_are_heard_of() -> None:
    """Hundreds of questions at a time have choked Prefect's client for good."""
    prefect, queue = Prefect(away=False), Queue()
    running = asyncio.create_task(intake_of(prefect, queue).run())
    await eventually(lambda: _as_many(queue))
    running.cancel()
    await asyncio.wait({running})
    assert prefect.read_calls == 1


async def test_all_deployments_are_listed_again_when_something_says_that_they_have_changed() -> None:
    prefect, queue = Prefect(away=False, lists=True), Queue()
    intake = intake_of(prefect, queue, poll_seconds=0.01)
    running = asyncio.create_task(intake.run())

    async def many_polls() -> None:
        enough = prefect.polled + 10
        await eventually(lambda: asyncio.sleep(0, prefect.polled >= enough))

    await eventually(lambda: _as_many(queue))
    await many_polls()
    at_first = prefect.listed
    await many_polls()
    assert prefect.listed == at_first
    queue.registered_anew = True
    await many_polls()
    assert prefect.listed == at_first + 1
    intake._foreign.add("other")
    await intake.changed(
        StateChange("run", "state", "SCHEDULED", "Scheduled", datetime.now(UTC), deployment_id="other")
    )
    await many_polls()
    assert prefect.listed == at_first + 2
    running.cancel()
    await asyncio.wait({running})


async def test_the_poll_finds_the_runs_of_a_deployment_that_could_not_be_asked_for() -> None:
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    queue = Queue()
    running = asyncio.create_task(intake_of(Prefect(away=True), queue).run())
    await eventually(lambda: _as_many(queue))
    running.cancel()
    await asyncio.wait({running})
    gc.collect()  # a task that failed and was asked by nobody says so as it goes
    assert unhandled == []


async def test_what_is_under_way_ends_with_the_intake() -> None:
    prefect, queue = Prefect(away=False), Queue()
    before = asyncio.all_tasks()
    running = asyncio.create_task(intake_of(prefect, queue).run())
    await eventually(lambda: asyncio.sleep(0, prefect.read_calls))
    running.cancel()
    await asyncio.wait({running})
    assert asyncio.all_tasks() == before


async def _as_many(queue: Queue) -> bool:
    return len(set(queue.queued)) == MANY
