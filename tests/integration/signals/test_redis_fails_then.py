"""Runs that were told of are forgotten only when they were seen to: a server fails at the very moment in between."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from config.settings import RedisSettings
from services.prefect_api.waiting import WaitingRuns
from services.signals.applier import Applier
from services.signals.resumer import build_resumer
from services.store.connection import AsyncRedis, connect_sync
from services.store.signals.signals import SignalStore
from services.store.signals.waits import Waits
from tests.integration.signals.conftest import Desk, new_key, running, settings
from tests.support.failing_once import fails_once
from tests.support.waiting import eventually

Start = Callable[[], AbstractAsyncContextManager[None]]


@pytest.fixture
def resumer_that_is_told(submission: Desk, redis: AsyncRedis, valkey_url: str) -> Start:
    """A resumer that looks by itself only when it starts and when it was told to."""

    @asynccontextmanager
    async def start() -> AsyncIterator[None]:
        parts = build_resumer(
            redis=redis,
            connect_rq=lambda: connect_sync(valkey_url, RedisSettings()),
            api=submission.api,
            settings=settings(poll_seconds=600, scan_seconds=600),
            dead=submission.letters,
            history=submission.book,
            instance="told",
        )
        async with running(parts):
            yield

    return start


async def test_a_run_that_was_heard_to_wait_is_seen_to_though_it_failed_the_first_time(
    submission: Desk, resumer_that_is_told: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, parked = new_key(), list[str]()
    failed = fails_once(monkeypatch, Waits, "began", when=lambda: bool(parked))
    async with resumer_that_is_told():
        early = await submission.ask(key=key)
        assert early.status == "buffered"
        parked.append(key)
        await submission.park(key)
        assert (await submission.outcome(early.signal.id)).status == "applied"
    assert failed


async def test_runs_that_began_to_wait_unheard_are_looked_for_though_it_failed_the_first_time(
    submission: Desk, resumer_that_is_told: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = await submission.park(new_key())
    failed = fails_once(monkeypatch, WaitingRuns, "paused")
    async with resumer_that_is_told():
        await eventually(lambda: submission.hints.memo_of(run_id), what="the run is known to wait", within_seconds=30)
    assert failed


@pytest.mark.parametrize("step", ["settle", "decide"])
async def test_a_buffered_signal_is_decided_though_its_resumer_ended_when_it_had_answered_the_run(
    submission: Desk, resumer_that_is_told: Start, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Nobody waits for its key any more, so nothing but its claim leads to it; it expires in a day."""
    applier = Applier(store=submission.store, runs=submission.runs, hints=submission.hints, settings=settings())
    key = new_key()
    signal_id = await submission.send_quietly(key=key)
    await applier.apply(signal_id)
    run_id = await submission.park(key)
    failed = fails_once(monkeypatch, SignalStore, step, error=KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        await applier.apply(signal_id)
    assert failed
    assert not (await submission.runs.read(run_id)).waiting
    async with resumer_that_is_told():
        assert (await submission.outcome(signal_id)).status == "applied"
    assert await submission.resumes(run_id) == 1
