"""Runs that begin to wait are heard of, also where Prefect commits what it has told much later."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from services.prefect_api import events
from services.prefect_api.runs import StateChange
from services.signals.resume_observer import ResumeObserver
from services.signals.wait_observer import WaitObserver
from tests.integration.signals.conftest import Desk, settings
from tests.support.waiting import eventually


async def test_a_run_that_is_seen_to_wait_long_after_it_was_told_of_is_heard_of(
    submission: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefect tells of the states of a bulk call when it makes them, and commits them all at its end."""
    run_id = await submission.park()
    await submission.set_state(run_id, "RUNNING")

    async def told(**_: object) -> AsyncIterator[StateChange]:
        yield StateChange(run_id, str(uuid.uuid4()), "PAUSED", "Paused", datetime.now(UTC))
        await asyncio.Event().wait()

    monkeypatch.setattr(events, "state_changes", told)

    async def nothing(_: object) -> None:
        """No signal is there to be applied."""

    watch = WaitObserver(
        store=submission.store,
        waits=submission.hints,
        runs=submission.runs,
        apply=nothing,
        serve=nothing,
        resume_observer=ResumeObserver(
            store=submission.store, waits=submission.hints, runs=submission.runs, apply=nothing, remind=nothing
        ),
        settings=settings(poll_seconds=600, scan_seconds=600),
    )
    watching = asyncio.create_task(watch.run())
    await asyncio.sleep(4)  # nothing is to happen
    assert await submission.hints.count() == 0
    await submission.set_state(run_id, "PAUSED")
    await eventually(lambda: _counted(submission, 1))
    watching.cancel()
    await asyncio.wait({watching})


async def _counted(submission: Desk, count: int) -> bool:
    return await submission.hints.count() == count
