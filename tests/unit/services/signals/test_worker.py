"""The resumer's workers: each job is applied on the role's loop, and what ends a worker does not end the part."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from config.settings import RedisSettings, ResumerSettings
from events.errors import TransientError
from events.untrusted_json import Limits
from services.job_queues.rq_keys import RESUME
from services.job_queues.workers import ThreadWorker, simple_worker
from services.signals import worker as worker_module
from services.signals.submission import SignalSubmission
from services.signals.worker import SignalWorker
from services.store.connection import AsyncRedis, SyncRedis, connect_sync
from services.store.signals.signals import SignalStore
from tests.support.waiting import eventually
from tests.unit.services.store.signals.making import signal

Connect = Callable[[], SyncRedis]


@pytest.fixture
def connect(valkey_url: str) -> Connect:
    return lambda: connect_sync(valkey_url, RedisSettings())


@pytest.fixture
def submission(redis: AsyncRedis, connect: Connect) -> Iterator[SignalSubmission]:
    with connect() as client:
        yield SignalSubmission(store=SignalStore(redis, ResumerSettings()), rq_redis=client, limits=Limits())


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "_AGAIN_SECONDS", 0.01)


@asynccontextmanager
async def running(worker: SignalWorker) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(worker.run())
    try:
        await eventually(lambda: asyncio.sleep(0, worker.status()["ready"]))
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_signals_are_applied_on_the_loop_of_the_role(submission: SignalSubmission, connect: Connect) -> None:
    applied: list[tuple[str, bool]] = []
    loop = asyncio.get_running_loop()

    async def apply(signal_id: str) -> None:
        applied.append((signal_id, asyncio.get_running_loop() is loop))

    worker = SignalWorker(apply=apply, connect=connect, instance="one", at_once=2)
    assert worker.status() == {"ready": False, "queue": RESUME, "signals": 0}
    async with running(worker):
        for number in range(3):
            await submission.submit(signal(f"s{number}"))
        await eventually(lambda: asyncio.sleep(0, len(applied) == 3))
        await eventually(lambda: asyncio.sleep(0, worker.status()["signals"] == 3))
    assert sorted(applied) == [("s0", True), ("s1", True), ("s2", True)]


async def test_a_signal_that_cannot_be_applied_does_not_end_the_worker(
    submission: SignalSubmission, connect: Connect
) -> None:
    seen: list[str] = []

    async def apply(signal_id: str) -> None:
        seen.append(signal_id)
        if signal_id == "bad":
            raise TransientError("redis was away for a moment")

    async with running(SignalWorker(apply=apply, connect=connect, instance="one", at_once=1)):
        await submission.submit(signal("bad"))
        await submission.submit(signal("good"))
        await eventually(lambda: asyncio.sleep(0, seen == ["bad", "good"]))


async def test_a_signal_under_way_is_finished_when_the_part_ends(
    submission: SignalSubmission, connect: Connect
) -> None:
    begun, may_end, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def apply(_: str) -> None:
        begun.set()
        await may_end.wait()
        done.set()

    worker = SignalWorker(apply=apply, connect=connect, instance="one", at_once=1)
    async with running(worker) as task:
        await submission.submit(signal())
        await begun.wait()
        task.cancel()
        asyncio.get_running_loop().call_soon(may_end.set)
    assert done.is_set()
    assert not worker.status()["ready"]


async def test_while_redis_is_away_the_part_tries_again_and_says_so(
    submission: SignalSubmission, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    away, applied = [True], list[str]()

    async def apply(signal_id: str) -> None:
        applied.append(signal_id)

    def perhaps(*args: Any, **options: Any) -> ThreadWorker:
        if away[0]:
            raise TransientError("out of reach")
        return simple_worker(*args, **options)

    monkeypatch.setattr(worker_module, "simple_worker", perhaps)
    worker = SignalWorker(apply=apply, connect=connect, instance="one", at_once=1)
    task = asyncio.create_task(worker.run())
    try:
        await eventually(lambda: asyncio.sleep(0, "degraded" in worker.status()))
        assert worker.status()["ready"] is False
        await submission.submit(signal())
        away[0] = False
        await eventually(lambda: asyncio.sleep(0, applied == ["s1"]))
        assert "degraded" not in worker.status()
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_nothing_is_applied_by_a_part_that_does_not_run(connect: Connect) -> None:
    async def apply(_: str) -> None: ...

    with pytest.raises(RuntimeError, match="does not run"):
        SignalWorker(apply=apply, connect=connect, instance="one", at_once=1).apply("s1")
