"""The intake, between what it hears and the queue."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

from config.settings import ExecutorSettings
from events.errors import TransientError
from services.executor.intake.run_intake import RunIntake
from services.executor.intake.run_policy import RunPolicy
from services.prefect_api.deployments import Deployment, DueRun
from services.prefect_api.events import Connected, StateChange
from services.prefect_api.run_calls import Stopped
from services.store.runs.registered_files import RegisteredFile
from tests.support.waiting import eventually

MANY = 300


class Port:
    """Prefect, which has told of many runs and takes its time to answer."""

    def __init__(self) -> None:
        self.read_calls = 0

    async def without_work_pool(self) -> list[Deployment]:
        await asyncio.Event().wait()
        return []

    async def read(self, deployment_id: str) -> Deployment:
        self.read_calls += 1
        await asyncio.sleep(0.2)
        return deployment_of(deployment_id)

    async def due(self, deployment_ids: Sequence[str], *, before: datetime) -> list[DueRun]:
        return []

    async def stopped(self, run_ids: Sequence[str]) -> list[Stopped]:
        return []

    async def changes(self) -> AsyncIterator[StateChange | Connected]:
        yield Connected()
        for number in range(MANY):
            yield StateChange(f"run-{number}", f"state-{number}", "SCHEDULED", "Scheduled", datetime.now(UTC), "d", ())
        await asyncio.Event().wait()


class Failing(Port):
    """Prefect, which is away when it is asked for the deployment, and back when it is polled."""

    async def read(self, deployment_id: str) -> Deployment:
        self.read_calls += 1
        raise TransientError("out of reach")

    async def without_work_pool(self) -> list[Deployment]:
        await eventually(lambda: asyncio.sleep(0, self.read_calls))
        return [deployment_of("d")]

    async def due(self, deployment_ids: Sequence[str], *, before: datetime) -> list[DueRun]:
        return [DueRun(f"run-{number}", f"state-{number}", "d", datetime.now(UTC)) for number in range(MANY)]


FILE = RegisteredFile("/project", "flows/flow.py:flow")


def deployment_of(deployment_id: str) -> Deployment:
    return Deployment(
        id=deployment_id,
        name="flow/default",
        path=FILE.path,
        entrypoint=FILE.entrypoint,
        remote=False,
        work_pool=None,
        tags=(),
        job_variables={},
    )


def intake_of(port: Port, queued: list[str]) -> RunIntake:
    async def enqueue(queue_name: str, run_id: str, state_id: str, *, again: bool = False) -> bool:
        queued.append(run_id)
        return True

    return RunIntake(
        prefect=port,
        enqueue=enqueue,
        policy=RunPolicy("default", (), lambda _: FILE),
        running=list,
        tell=lambda _: None,
        changed=lambda _: None,
        settings=ExecutorSettings(),
    )


async def test_a_deployment_is_asked_for_once_however_many_of_its_runs_are_heard_of() -> None:
    """Hundreds of questions at a time have choked Prefect's client for good."""
    port = Port()
    queued: list[str] = []
    running = asyncio.create_task(intake_of(port, queued).run())
    await eventually(lambda: _as_many(queued))
    running.cancel()
    await asyncio.wait({running})
    assert port.read_calls == 1


async def test_the_poll_finds_the_runs_of_a_deployment_that_could_not_be_asked_for() -> None:
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    queued: list[str] = []
    running = asyncio.create_task(intake_of(Failing(), queued).run())
    await eventually(lambda: _as_many(queued))
    running.cancel()
    await asyncio.wait({running})
    gc.collect()  # a task that failed and was asked by nobody says so as it goes
    assert unhandled == []


async def _as_many(queued: list[str]) -> bool:
    return len(queued) == MANY
