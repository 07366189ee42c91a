"""The listener of one watched folder: handles notifications, scans and unready files, and reports health."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import structlog

from config.settings import FileSettings, ListenerSettings
from config.sources import FilesSource
from events.errors import Backpressure, TransientError
from services.common.backoff import Backoff, heed_cancellation
from services.common.reasons import RETRYING, told
from services.listeners.files.arriving.arrivals import Arrivals
from services.listeners.files.arriving.completeness import NO_MARKER, ORPHAN, TEMPORARY, CompletenessWait
from services.listeners.files.arriving.links import RefusedLinks
from services.listeners.files.arriving.unready_files import UnreadyFiles, shown
from services.listeners.files.folder import Folder
from services.listeners.files.full_scan import FullScan, FullScanResult
from services.listeners.files.names import Names
from services.listeners.files.scanning.examine import Examiner
from services.listeners.files.scanning.resolve import Resolver
from services.listeners.files.scanning.scan import Found
from services.listeners.files.uncovered import UncoveredFiles
from services.listeners.files.watch_threads import WatchThreads
from services.listeners.files.watching.disk_watch import DiskWatch
from services.listeners.files.watching.watch_monitor import WatchMonitor
from services.listeners.files.watching.watcher import Watcher
from services.store.files.ledger import Ledger

log = structlog.get_logger()

_HINTS: Final = 20_000
"""Limit of unread notifications; beyond it a full scan finds the same."""
_BURST: Final = 2000
"""A batch of this many notifications may have overflowed the system's queue: a full scan follows."""
_NEW_DIRECTORY: Final = (0.0, 0.2, 1.0)
"""Delays of the scans of a new directory: the watcher begins to watch it somewhere in between."""
_PART: Final = 1000
_SEVERAL_SECONDS: Final = 0.05
"""Several requests for a scan within this time make one scan."""
_COUNT_SECONDS: Final = 1.0


class FilesListener:
    """Announces what arrives in one folder; several instances may watch one folder.

    `run` retries while Redis or the folder is away. `status` is for `sluice status`.
    """

    def __init__(
        self,
        *,
        name: str,
        source: FilesSource,
        settings: FileSettings,
        ledger: Ledger,
        backoff: ListenerSettings | None = None,
        home: Path | None = None,
        watcher: Callable[..., Watcher] = Watcher,
    ) -> None:
        folder = Folder.of(name, source, settings)
        self._folder = folder
        self._names = Names(source)
        self._ledger = ledger
        self._threads = WatchThreads(name)
        self._look_again = asyncio.Event()
        self._waiting = UnreadyFiles(limit=settings.max_waiting, changed=self._look_again.set)
        self._resolver = Resolver(folder, self._names)
        self._arrivals = Arrivals(
            folder=folder,
            ledger=ledger,
            examiner=Examiner(folder, self._names.marker),
            waiting=self._waiting,
            threads=self._threads,
            trust_clock=self._trusts_clock,
        )
        self._sweeper = self._full_scan()
        self._guard = WatchMonitor(
            folder=folder, threads=self._threads, heard=self._heard, rescan=self.rescan, watcher=watcher
        )
        disks = {"the watch": folder.path, **({"the home": home} if home is not None else {})}
        self._disks = DiskWatch(disks, settings, threads=self._threads, made_room=self.rescan)
        self._backoff = Backoff.of(f"announce files of the watch {name}", backoff or ListenerSettings())
        self._well = asyncio.Event()
        self._well.set()
        self._hints: dict[bytes, None] = {}
        self._hinted = asyncio.Event()
        self._scan_wanted = asyncio.Event()
        self._directories: dict[bytes, None] = {}
        self._directory_due = asyncio.Event()
        self._swept: FullScanResult | None = None
        self._swept_at: datetime | None = None
        self._numbers: Mapping[str, int] = {}
        self._links = RefusedLinks(folder)
        self._uncovered = UncoveredFiles(folder, self._names)

    def _full_scan(self) -> FullScan:
        return FullScan(
            folder=self._folder,
            names=self._names,
            ledger=self._ledger,
            arrivals=self._arrivals,
            threads=self._threads,
            consider=self._consider_scanned,
        )

    def _trusts_clock(self) -> bool:
        """Whether times of files are by this machine's clock: those of a network folder are by its server's."""
        return not self._guard.remote

    async def run(self) -> None:
        """Listen until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._guard.run(), name="guard")
                tasks.create_task(self._disks.run(), name="disks")
                tasks.create_task(self._scan_on(), name="scan")
                for turn in (self._follow_hints, self._look_twice, self._explore):
                    tasks.create_task(self._keep(turn), name=turn.__name__)
                tasks.create_task(self._count(), name="count")
                tasks.create_task(self._warn(), name="warn")
        finally:
            self._guard.close()
            await self._arrivals.close()
            self._threads.close()

    def rescan(self) -> None:
        """Request a full scan as soon as possible."""
        self._scan_wanted.set()

    def status(self) -> Mapping[str, Any]:
        """Healthy, or degraded with the reasons; the number of files by state; the last full scan."""
        unreadable = self._swept.report.unreadable if self._swept else []
        reasons: dict[str, str | None] = {
            **self._guard.problems(),
            **self._disks.problems(),
            RETRYING: self._backoff.trouble,
        }
        if unreadable:
            first = shown(unreadable[0]) or "."
            reasons["directories-unreadable"] = f"{len(unreadable)} directories cannot be read, the first is {first}"
        numbers = self._numbers
        waiting = self._waiting.summary(time.monotonic())
        return {
            "ready": True,
            **told(reasons),
            "path": str(self._folder.path),
            "disks": self._disks.report(),
            "by": self._guard.by,
            "seen": self._swept.report.files if self._swept else 0,
            "announced": numbers.get("generation", 0),
            "in_flight": numbers.get("in_flight", 0),
            "done": numbers.get("done", 0),
            "failed": numbers.get("failed", 0),
            "unmatched": numbers.get("unmatched", 0),
            "waiting": waiting,
            "oldest_waiting": next(iter(waiting["oldest"]), None),
            "uncovered": self._uncovered.summary,
            "links_refused": self._links.count,
            "last_full_scan": self._swept_at.isoformat() if self._swept_at else None,
            "last_full_scan_seconds": round(self._swept.seconds, 3) if self._swept else None,
        }

    async def _scan_on(self) -> None:
        """Scan repeatedly; the first scan that succeeds after failures logs the recovery."""
        while True:
            heed_cancellation()
            try:
                pause = await self._scan()
            except (TransientError, Backpressure) as error:
                self._well.clear()
                await self._backoff.after(error)
                continue
            self._backoff.worked()
            self._well.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._scan_wanted.wait()
                    await asyncio.sleep(_SEVERAL_SECONDS)

    async def _keep(self, turn: Callable[[], Awaitable[None]]) -> None:
        """Repeat a turn; after an error wait until a scan has succeeded."""
        while True:
            heed_cancellation()
            await self._well.wait()
            try:
                await turn()
            except (TransientError, Backpressure):
                self._well.clear()
                self.rescan()  # a full scan finds the unhandled notifications' files

    # Hints -----------------------------------------------------------------------------------------------------------

    def _heard(self, paths: Sequence[bytes]) -> None:
        if len(self._hints) > _HINTS:
            self._hints.clear()
            self.rescan()
        self._hints.update(dict.fromkeys(paths))
        if len(paths) > _BURST:
            self.rescan()
        self._hinted.set()

    async def _follow_hints(self) -> None:
        await self._hinted.wait()
        self._hinted.clear()
        while self._hints:
            part = list(self._hints)[:_PART]
            for path in part:
                del self._hints[path]
            await self._visit(part)

    async def _visit(self, paths: Sequence[bytes]) -> None:
        """Examine paths that the watcher or a timer has named, and sort them by what they are now.

        A new directory is scanned several times: files in it may have been written before the watcher knew it.
        """
        resolved = await self._threads.look(self._resolver.resolve, paths)
        now = time.monotonic()
        for reason, unready in ((TEMPORARY, resolved.temporary), (ORPHAN, resolved.orphan_markers)):
            for path in unready:
                self._waiting.put(path, CompletenessWait(reason), now)
        for path in resolved.owned_markers:
            self._waiting.drop(path)
        for path in resolved.links:
            self._links.refuse(path)
        self._uncovered.met(resolved.uncovered)
        for path in resolved.directories:
            for delay in _NEW_DIRECTORY:
                asyncio.get_running_loop().call_later(delay, self._explore_soon, path)
            self._guard.directory_appeared()
        if resolved.gone:
            await self._gone(resolved.gone)
        if resolved.found:
            await self._consider(resolved.found)

    async def _gone(self, paths: Sequence[bytes]) -> None:
        for path in paths:
            self._waiting.drop(path)
        rows = await self._ledger.rows(self._folder.name, paths)
        there = {path: row for path, row in zip(paths, rows, strict=True) if row is not None}
        if there:
            await self._sweeper.close_rows(there)

    def _explore_soon(self, directory: bytes) -> None:
        self._directories[directory] = None
        self._directory_due.set()

    async def _explore(self) -> None:
        await self._directory_due.wait()
        self._directory_due.clear()
        due, self._directories = self._directories, {}
        for directory in due:
            await self._sweeper.explore(directory)

    # Second looks ----------------------------------------------------------------------------------------------------

    async def _look_twice(self) -> None:
        """Examine unready files again when they are due."""
        at = self._waiting.next_at()
        self._look_again.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if at is None else at - time.monotonic()):
                await self._look_again.wait()
        due = self._waiting.due(time.monotonic(), _PART)
        if due:
            await self._visit(due)

    # Scans -----------------------------------------------------------------------------------------------------------

    async def _scan(self) -> float:
        """Scan once; return the seconds until the next scan."""
        await self._guard.armed.wait()
        started = time.monotonic()
        self._scan_wanted.clear()
        swept = await self._sweeper.sweep()
        self._swept, self._swept_at = swept, datetime.now(UTC)
        for path in swept.report.links:
            self._links.refuse(path)
        if swept.healthy:
            self._uncovered.scanned(swept.report.uncovered, swept.report.uncovered_files)
        still = [path for path in self._waiting.paths() if not self._waiting.scheduled(path)]
        doubtful = [*still, *swept.report.temporary, *swept.report.markers]
        for start in range(0, len(doubtful), _PART):
            await self._visit(doubtful[start : start + _PART])
        if swept.healthy:
            self._guard.scanned(swept.report.directories)
        # Whatever the size of the tree, reading it takes at most a hundredth of the time.
        pause = max(self._guard.scan_interval(), swept.scan_seconds * 100) - (time.monotonic() - started)
        return max(pause, _SEVERAL_SECONDS)

    async def _consider_scanned(self, found: Sequence[Found]) -> int:
        return await self._consider([file for file in found if not self._waiting.scheduled(file.path)])

    async def _consider(self, found: Sequence[Found]) -> int:
        """Announce those of the files that are complete and new; return their number."""
        if not found or not self._disks.room.is_set():  # when there is room again, a scan finds them
            return 0
        try:
            return await self._arrivals.consider(found)
        except (TransientError, Backpressure):
            raise
        except Exception as error:
            if len(found) > 1:  # one file that cannot be handled must not delay the others
                return sum([await self._consider([file]) for file in found])
            log.exception("a file cannot be handled", watch=self._folder.name, file=shown(found[0].path))
            self._waiting.put(found[0].path, CompletenessWait(f"cannot be handled: {error!r}"), time.monotonic())
            return 0

    # The rest --------------------------------------------------------------------------------------------------------

    async def _warn(self) -> None:
        """Warn of files that have been unready for long."""
        while True:
            await asyncio.sleep(min(1.0, self._folder.warn_after))
            for path, entry in self._waiting.overdue(time.monotonic(), self._folder.warn_after):
                log.warning(
                    "a file still waits",
                    watch=self._folder.name,
                    file=shown(path),
                    waits_for=entry.reason,
                    seconds=round(time.monotonic() - entry.since),
                    hint=NO_MARKER if entry.reason == ORPHAN else None,
                )

    async def _count(self) -> None:
        while True:
            heed_cancellation()
            with contextlib.suppress(TransientError, Backpressure):  # announcing reports what is wrong
                self._numbers = await self._ledger.numbers(self._folder.name)
            await asyncio.sleep(_COUNT_SECONDS)
