"""What the observer of waits has begun."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import cast

import pytest

from config.settings import ResumerSettings
from services.prefect_api import events
from services.prefect_api.events import Connected
from services.prefect_api.run_view import RunView
from services.prefect_api.runs import StateChange
from services.prefect_api.waiting import WaitingRuns
from services.signals.resume_observer import ResumeObserver
from services.signals.wait_observer import WaitObserver
from services.store.connection import AsyncRedis
from services.store.signals.signals import SignalStore
from services.store.signals.waits import Waits
from tests.support.waiting import eventually


class NoRuns:
    """Takes the place of Prefect, in which no run waits."""

    async def paused(self) -> AsyncIterator[Sequence[RunView]]:
        for page in ():
            yield page

    async def read_many(self, _: Sequence[str]) -> Sequence[RunView]:
        return []


class Slow:
    """Takes the place of the observer of resumes, and of a Prefect that does not answer it."""

    def __init__(self) -> None:
        self.asked = 0

    async def left(self, *_: object, **__: object) -> None:
        self.asked += 1
        await asyncio.Event().wait()

    async def alarms(self, _: datetime) -> None: ...

    async def still_waiting(self, _: object) -> None: ...

    async def untag_ended(self, _: object) -> None: ...


async def test_what_was_begun_beside_ends_with_the_observer(redis: AsyncRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    async def changes(**_: object) -> AsyncIterator[StateChange | Connected]:
        yield Connected()
        yield StateChange("run", "state", "RUNNING", "Running", datetime.now(UTC))
        await asyncio.Event().wait()

    async def apply(_: str) -> None: ...

    monkeypatch.setattr(events, "state_changes", changes)
    settings, slow = ResumerSettings(), Slow()
    observer = WaitObserver(
        store=SignalStore(redis, settings),
        waits=Waits(redis),
        runs=cast(WaitingRuns, NoRuns()),
        apply=apply,
        serve=apply,
        resume_observer=cast(ResumeObserver, slow),
        settings=settings,
    )
    before = asyncio.all_tasks()
    running = asyncio.create_task(observer.run())
    await eventually(lambda: asyncio.sleep(0, slow.asked))
    running.cancel()
    await asyncio.wait({running})
    assert asyncio.all_tasks() == before
