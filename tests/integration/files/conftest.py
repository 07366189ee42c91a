"""A watched folder with its listener and archiver running, and what comes out of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from config.settings import FileSettings, HistorySettings, JournalSettings
from config.sources import FilesSource
from events.identity import identity_of
from services.listeners.files.archiving.archiver import FileArchiver
from services.listeners.files.listener import FilesListener
from services.store.connection import AsyncRedis
from services.store.events.finished_events import FINISHED, FinishedEvents
from services.store.files.ledger import Ledger
from services.store.files.returns import FileReturns
from services.store.lease import Lease
from tests.support.waiting import eventually

QUICK = FileSettings(
    rescan_seconds=0.5,
    poll_seconds=0.1,
    stable_seconds=0.3,
    warn_after_seconds=0.5,
    cookie_seconds=0.5,
    root_check_seconds=0.1,
)
"""The defaults' proportions at a fraction of their duration."""

CALM = QUICK.model_copy(update={"rescan_seconds": 3600.0})
"""Without periodic scans: what is found in time was heard of."""


class Watched:
    """One folder, one Redis, and any number of listeners and archivers on them."""

    def __init__(self, path: Path, redis: AsyncRedis) -> None:
        self.path = path
        self.redis = redis
        self.settings = QUICK
        self.listeners: list[FilesListener] = []
        self._tasks: list[asyncio.Task[None]] = []

    def ledger(self) -> Ledger:
        return Ledger(self.redis, JournalSettings(), self.settings)

    def returns(self) -> FileReturns:
        return FileReturns(self.redis, journal=JournalSettings(), history=HistorySettings())

    def listener(self, name: str = "inbox", **options: Any) -> FilesListener:
        injected = {key: options.pop(key) for key in ("watcher",) if key in options}
        source = FilesSource(**{"path": self.path, **options})
        listener = FilesListener(name=name, source=source, settings=self.settings, ledger=self.ledger(), **injected)
        self.listeners.append(listener)
        return listener

    async def listen(self, name: str = "inbox", *, armed: bool = True, **options: Any) -> FilesListener:
        """A listener that runs, and has looked at everything once."""
        listener = self.listener(name, **options)
        self._tasks.append(asyncio.create_task(listener.run()))
        if armed:
            await self.until(lambda: listener.status()["last_full_scan"], "the first scan")
        return listener

    def archive(self, name: str = "inbox", **options: Any) -> FileArchiver:
        """An archiver that runs."""
        archiver = FileArchiver(
            sources={name: FilesSource(**{"path": self.path, **options})},
            settings=self.settings,
            ledger=self.ledger(),
            finished=FinishedEvents(self.redis, consumer=f"test-{len(self._tasks)}"),
            returns=self.returns(),
            turn=lambda right: Lease(self.redis, right, ttl_seconds=5),
            rescan=lambda _: [listener.rescan() for listener in self.listeners] and None,
        )
        self._tasks.append(asyncio.create_task(archiver.run()))
        return archiver

    async def stop(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self.listeners.clear()

    async def events(self) -> list[dict[str, Any]]:
        """Everything that was journalled, in order."""
        return [json.loads(fields[b"event"]) for _, fields in await self.redis.xrange("sluice:journal")]

    async def subjects(self) -> list[str]:
        return [event["subject"] for event in await self.events()]

    async def arrived(self, count: int, *, within_seconds: float = 15.0) -> list[dict[str, Any]]:
        """All events, once there are ``count``."""

        async def enough() -> bool:
            return await self.redis.xlen("sluice:journal") >= count

        await eventually(enough, within_seconds=within_seconds, what=f"{count} events")
        return await self.events()

    async def exactly(self, count: int, **options: Any) -> list[dict[str, Any]]:
        """All events, when there are ``count`` and further full scans later still no more."""
        if count:
            await self.arrived(count, **options)
        await self.scanned()
        events = await self.events()
        assert len(events) == count, [event["subject"] for event in events]
        return events

    async def scanned(self) -> None:
        """Return after a full scan by every listener that began after this was called."""
        for listener in self.listeners:
            before = listener.status()["last_full_scan"]
            listener.rescan()
            await self.until(lambda: listener.status()["last_full_scan"] != before, "a scan")  # noqa: B023
            between = listener.status()["last_full_scan"]
            listener.rescan()
            await self.until(lambda: listener.status()["last_full_scan"] != between, "a scan")  # noqa: B023

    async def until(self, probe: Callable[[], Any], what: str, *, within_seconds: float = 15.0) -> Any:
        async def probed() -> Any:
            return probe()

        return await eventually(probed, within_seconds=within_seconds, what=what)

    async def finish(self, event: dict[str, Any], *, ok: bool = True, matched: int = 1, **more: Any) -> None:
        """Say how an event ended, as the pipeline does."""
        state = "COMPLETED" if ok else "FAILED"
        run = {
            "run_id": "11111111-2222-3333-4444-555555555555",
            "url": "http://127.0.0.1:4200/v2/runs/flow-run/11111111-2222-3333-4444-555555555555",
            "rule": "ingest",
            "deployment": "ingest-file/default",
            "state_type": state,
            "state_name": state.capitalize(),
            "message": None if ok else "column `amount` is missing",
        }
        entry = {
            "identity": identity_of(event["source"], event["id"]),
            "ok": ok,
            "matched": matched,
            "runs": [run] if matched else [],
            "dead": [],
        }
        await self.redis.xadd(FINISHED, {"finished": json.dumps(entry | more)})

    async def settled(self, name: str = "inbox", *, but: int = 0) -> dict[str, int]:
        """The ledger's numbers, once nothing is in flight, but so many."""
        ledger = self.ledger()

        async def empty() -> bool:
            return (await ledger.numbers(name))["in_flight"] == but

        await eventually(empty, what="nothing in flight")
        return await ledger.numbers(name)


@pytest_asyncio.fixture
async def watched(tmp_path: Path, redis: AsyncRedis) -> AsyncIterator[Watched]:
    box = tmp_path / "inbox"
    box.mkdir()
    found = Watched(box, redis)
    yield found
    await found.stop()


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory beside the watch, on the same file system."""
    path = tmp_path / "outside"
    path.mkdir()
    return path
