"""The full scan: compares everything below the watch with the ledger, and closes the rows of missing files."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from services.common.file_version import Version
from services.listeners.files.arriving.arrivals import Arrivals
from services.listeners.files.folder import Folder
from services.listeners.files.names import Names
from services.listeners.files.scanning.scan import Found, Report, Scan, memory_of
from services.listeners.files.watch_threads import WatchThreads
from services.listeners.files.watching.root import are_gone, look_at_root
from services.store.files.ledger import MEMORY_SECONDS, Ledger
from services.store.files.ledger_rows import Row, Stamp, State

_FOREIGN_SECONDS: Final = 86_400.0
"""How long a directory that replaced the watched one must exist before files missing in it count as deleted."""
_SETTLED_STATES: Final = frozenset({State.DONE, State.FAILED, State.UNMATCHED})


@dataclass(frozen=True, slots=True)
class FullScanResult:
    """The result of one full scan: what it found, its duration, and the time spent on the file system."""

    report: Report
    healthy: bool
    """The directory existed, was the same one throughout, and was read to the end."""
    seconds: float
    scan_seconds: float
    events: int


@dataclass(kw_only=True, eq=False)
class FullScan:
    """Scans one watch, one scan at a time."""

    folder: Folder
    names: Names
    ledger: Ledger
    arrivals: Arrivals
    threads: WatchThreads
    consider: Callable[[Sequence[Found]], Awaitable[int]]

    def __post_init__(self) -> None:
        self._stamp: Stamp | None = None
        self._reconciled_at: float | None = None
        self._foreign_since: float | None = None
        self.confirmed: str | None = None
        """The identity of the directory to which the ledger's rows belong, once a scan has found it."""

    async def sweep(self) -> FullScanResult:
        """Scan everything; raises what the ledger raises, and then part of the watch was not scanned."""
        started = time.monotonic()
        await self._check_memory()
        before = await self.threads.check(look_at_root, self.folder)
        remembered = set(self.arrivals.settled)
        if before.identity is None:
            return FullScanResult(Report(), healthy=False, seconds=0, scan_seconds=0, events=0)
        report, events, scan_seconds = await self.explore(b"")
        after = await self.threads.check(look_at_root, self.folder)
        healthy = report.complete and after.identity == before.identity
        if healthy:
            missing = remembered - report.settled
            self.arrivals.settled -= missing
            self.confirmed = before.identity if await self._is_own(before.identity) else None
            if missing or await self._rows_are_left():
                await self._reconcile()
                self._reconciled_at = time.monotonic()
        return FullScanResult(report, healthy, time.monotonic() - started, scan_seconds, events)

    async def explore(self, below: bytes) -> tuple[Report, int, float]:
        """Scan a directory of the watch; return the report, the number of new events, and the seconds on disk."""
        scan = Scan(self.folder, self.names, self.arrivals.settled, below=below)
        events, spent = 0, 0.0

        def read() -> list[Found]:
            nonlocal spent
            begun = time.thread_time()
            try:
                return scan.next(self.folder.settings.batch)
            finally:
                spent += time.thread_time() - begun

        reading = asyncio.ensure_future(self.threads.scan(read))
        try:
            while batch := await reading:
                # The next part is read while this one is decided.
                reading = asyncio.ensure_future(self.threads.scan(read))
                events += await self.consider(batch)
        finally:
            reading.cancel()
            await self.threads.scan(scan.close)
        return scan.report, events, spent

    async def _check_memory(self) -> None:
        stamp = await self.ledger.stamp(self.folder.name)
        known, self._stamp = self._stamp, stamp
        # Another server, one that lost its latest seconds, or a row closed since: what is remembered of rows may be
        # wrong, so the ledger itself is read.
        if known is None or not known.holds_at(stamp):
            self.arrivals.forget_settled()

    async def _rows_are_left(self) -> bool:
        """Whether there are more rows than files, checked at intervals."""
        if self._reconciled_at is not None and time.monotonic() - self._reconciled_at < MEMORY_SECONDS:
            return False
        self._reconciled_at = time.monotonic()
        return await self.ledger.size(self.folder.name) > len(self.arrivals.settled)

    async def _reconcile(self) -> None:
        """Close the rows of files that no longer exist, and delete rows that were closed long ago."""
        async for chunk in self.ledger.every_row(self.folder.name):
            now_ms = time.time() * 1000
            old = [
                (path, row)
                for path, row in chunk
                if row.state is State.CLOSED and now_ms - row.at_ms > MEMORY_SECONDS * 1000
            ]
            if old:
                await self.ledger.forget(self.folder.name, old)
            unseen = {path: row for path, row in chunk if self._may_be_gone(path, row)}
            if unseen:
                await self.close_rows(unseen)

    async def close_rows(self, rows: dict[bytes, Row]) -> int:
        """Close the rows of files that do not exist while the directory does; return their number.

        Closes none if the directory, before and after, is not the one to which the rows belong.
        """
        if self.confirmed is None:
            return 0
        gone = await self.threads.check(are_gone, self.folder, list(rows))
        if not gone or (await self.threads.check(look_at_root, self.folder)).identity != self.confirmed:
            return 0
        return await self.ledger.close(self.folder.name, [(path, rows[path]) for path in gone])

    def _may_be_gone(self, path: bytes, row: Row) -> bool:
        if row.state not in _SETTLED_STATES:
            return False
        return memory_of(path, Version.parse(row.version)) not in self.arrivals.settled

    async def _is_own(self, identity: str) -> bool:
        """Return whether the folder is the one that the ledger knows, or has replaced it for good.

        For a while another directory may stand in its place, as where a disk is not mounted: then nothing is gone.
        """
        known = await self.ledger.root(self.folder.name)
        if known == identity:
            self._foreign_since = None
            return True
        if known is not None:
            now = time.monotonic()
            self._foreign_since = now if self._foreign_since is None else self._foreign_since
            if now - self._foreign_since < _FOREIGN_SECONDS:
                return False
        await self.ledger.set_root(self.folder.name, identity)
        return True
