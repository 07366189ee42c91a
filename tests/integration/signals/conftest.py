"""A whole resumer on the session's servers, and flows that wait."""

from __future__ import annotations

import asyncio
import gc
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from config.settings import RedisSettings, ResumerSettings
from events.dead_letter import DeadLetter
from events.event import Limits
from events.signal import signal_from_mapping
from services.prefect_api.client import PrefectApi, connect
from services.prefect_api.waiting import WaitingRuns
from services.resumer import Resumer, build_resumer
from services.resumer.desk import SignalDesk
from services.store.connection import AsyncRedis, connect_sync
from services.store.signal_record import SignalRecord
from services.store.signals import SignalStore
from tests.support.waiting import eventually

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """An async flow that Prefect runs on the test's own loop leaves a socket of Prefect's client to the collector."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"))


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    yield
    gc.collect()  # here, where the warning is expected, and not in somebody else's test


FINAL = ("applied", "duplicate", "rejected", "expired", "unknown-run")


class Letters:
    def __init__(self) -> None:
        self.kept: dict[str, DeadLetter] = {}

    async def add(self, letter: DeadLetter) -> None:
        self.kept[letter.id] = letter


class Book:
    def __init__(self) -> None:
        self.lines: list[tuple[str, str, str]] = []

    async def signal(self, event_id: str, signal_id: str, outcome: str, *, rule: str | None = None) -> None:
        self.lines.append((event_id, signal_id, outcome))


@dataclass
class Desk:
    """What a test does with signals."""

    desk: SignalDesk
    store: SignalStore
    runs: WaitingRuns
    api: PrefectApi
    letters: Letters = field(default_factory=Letters)
    book: Book = field(default_factory=Book)

    async def send(self, **message: Any) -> str:
        """Submit a signal and answer its id."""
        signal = signal_from_mapping(message)
        await self.desk.submit(signal, origin="test")
        return signal.id

    async def outcome(self, signal_id: str, *, of: Sequence[str] = FINAL, within: float = 15) -> SignalRecord:
        record = await self.store.outcome(signal_id, within, of=of)
        assert record is not None
        assert record.status in of, f"{record.status}: {record.reason}"
        return record

    async def ask(self, **message: Any) -> SignalRecord:
        """Submit a signal and wait for what became of it, buffered included."""
        return await self.outcome(await self.send(**message), of=(*FINAL, "buffered"))

    async def waiting(self, run_id: str, pause: str | None = None) -> None:
        """Return once the run waits."""

        async def probe() -> bool:
            run = await self.runs.read(run_id)
            return run.waiting and (pause is None or run.pause_key == pause)

        await eventually(probe, what=f"run {run_id} waits")

    async def state(self, run_id: str) -> dict[str, Any]:
        run = await self.api.request("GET", f"/flow_runs/{run_id}")
        return {"type": run["state"]["type"], "message": run["state"]["message"], "tags": run["tags"]}


def settings(**changes: Any) -> ResumerSettings:
    return ResumerSettings(**{"poll_seconds": 2.0, "lease_seconds": 8.0, **changes})


@asynccontextmanager
async def running(parts: Resumer) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(part.run()) for part in parts.parts().values()]
    watch = parts.parts()["watch"]

    async def ready() -> bool:
        return bool(watch.status()["ready"])

    try:
        await eventually(ready)
        yield
        for task in tasks:
            assert not task.done(), task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=10)


@pytest_asyncio.fixture
async def desk(redis: AsyncRedis, valkey_url: str, prefect_url: str) -> AsyncIterator[Desk]:
    """The desk without a resumer behind it."""
    rq_redis = connect_sync(valkey_url, RedisSettings())
    store = SignalStore(redis, settings())
    async with connect() as api:
        yield Desk(
            desk=SignalDesk(store=store, rq_redis=rq_redis, limits=Limits()),
            store=store,
            runs=WaitingRuns(api),
            api=api,
        )
    rq_redis.close()


@pytest_asyncio.fixture
async def resumer(desk: Desk, redis: AsyncRedis, valkey_url: str) -> AsyncIterator[Desk]:
    """The desk with a whole resumer behind it."""
    parts = build_resumer(
        redis=redis,
        connect_rq=lambda: connect_sync(valkey_url, RedisSettings()),
        api=desk.api,
        settings=settings(),
        dead=desk.letters,
        history=desk.book,
        instance=uuid.uuid4().hex[:8],
    )
    async with running(parts):
        yield desk


def new_key() -> str:
    return f"key-{uuid.uuid4().hex[:8]}"
