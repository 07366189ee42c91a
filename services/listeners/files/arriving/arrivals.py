"""Turns files that were found into journalled events: examine, decide, announce."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import structlog

from services.common import metrics
from services.common.file_version import Version
from services.common.telemetry import tracing
from services.listeners.files.arriving.completeness import (
    NO_NAME,
    UNREADABLE,
    CompletenessWait,
    Past,
    readiness,
)
from services.listeners.files.arriving.describe import Describer, tail
from services.listeners.files.arriving.known_files import is_announced, is_new
from services.listeners.files.arriving.unready_files import UnreadyFiles, shown
from services.listeners.files.folder import Folder
from services.listeners.files.scanning.examine import Examined, Examiner, UnreadableFile
from services.listeners.files.scanning.scan import Found, memory_of
from services.listeners.files.watch_threads import WatchThreads
from services.store.files.ledger import Ledger
from services.store.files.ledger_rows import Announcement, Row
from sluice.display import visible

log = structlog.get_logger()

T = TypeVar("T")

_LINE_EACH: Final = 20
"""Largest number of files at once that are logged one by one."""


@dataclass(frozen=True, slots=True)
class _Ready:
    path: bytes
    row: Row | None
    seen: Examined


@dataclass(kw_only=True, eq=False)
class Arrivals:
    """Decides on the files of one watch. ``settled`` has the files that need no further check until they change.

    ``trust_clock``: whether file times are of this machine's clock. `consider` may be called concurrently, also for the
    same file: the ledger accepts one announcement.
    """

    folder: Folder
    ledger: Ledger
    examiner: Examiner
    waiting: UnreadyFiles
    threads: WatchThreads
    trust_clock: Callable[[], bool] = lambda: True

    def __post_init__(self) -> None:
        self._describer = Describer(self.folder)
        self._digests: dict[bytes, tuple[Version, str]] = {}
        self._digesting: dict[bytes, asyncio.Task[None]] = {}
        self._epoch = 0
        self.settled: set[int] = set()

    def forget_settled(self) -> None:
        """Compare every file with the ledger again."""
        self.settled = set()
        self._epoch += 1

    async def consider(self, found: Sequence[Found]) -> int:
        """Examine files that exist and whose names count; return the number of new events.

        Raises what the ledger raises; then some of the files must be considered again.
        """
        announced, left = 0, list(found)
        for _ in range(3):  # a row that another instance wrote meanwhile is read again
            if not left:
                break
            more, left = await self._consider(left)
            announced += more
        return announced

    async def close(self) -> None:
        """Cancel the digests under way."""
        for task in self._digesting.values():
            task.cancel()
        await asyncio.gather(*self._digesting.values(), return_exceptions=True)

    async def _consider(self, found: Sequence[Found]) -> tuple[int, list[Found]]:
        """Announce those of the found files that are complete; return their number, and those to be considered again.

        The ledger is asked first, which settles almost all files of a scan without a look at the disk.
        """
        epoch = self._epoch
        versions = [(file.path, str(file.version)) for file in found]
        rows, as_of = await self.ledger.compare(self.folder.name, versions)
        doubtful: list[tuple[Found, Row | None]] = []
        for file, row in zip(found, rows, strict=True):
            if row is True:
                self._settle(file.path, file.version, epoch)
            else:
                doubtful.append((file, row))
        if not doubtful:
            return 0, []
        looks = await self.threads.look(self._look, [file.path for file, _ in doubtful])
        ready = [
            one
            for (file, row), seen in zip(doubtful, looks, strict=True)
            if (one := self._sift(file.path, row, seen, epoch)) is not None
        ]
        if not ready:
            return 0, []
        rerun = self.folder.source.rerun
        new: list[_Ready] = []
        touched: list[_Ready] = []
        for one in ready:
            (new if is_new(one.row, one.seen, rerun) else touched).append(one)
        left = await self._adopt(touched, epoch)
        announced, more_left = await self._announce(new, as_of, epoch)
        return announced, left + more_left

    def _look(self, paths: Sequence[bytes]) -> list[Examined | UnreadableFile | None]:
        return [self.examiner.examine(path) for path in paths]

    def _sift(self, path: bytes, row: Row | None, seen: Examined | UnreadableFile | None, epoch: int) -> _Ready | None:
        """Return the file if it is complete and new; otherwise note what it waits for, and return None."""
        now = time.monotonic()
        if seen is None:
            self.waiting.drop(path)
            return None
        if isinstance(seen, UnreadableFile):
            self.waiting.put(path, CompletenessWait(UNREADABLE), now)
            return None
        if is_announced(row, seen.version):
            self._settle(path, seen.version, epoch)
            return None
        unchanged, written_here = self.waiting.past(path, seen.fingerprint, now)
        if self.trust_clock():
            unchanged = max(unchanged, (time.time_ns() - seen.ctime_ns) / 1e9)
        wait = readiness(self.folder, seen, Past(unchanged, written_here, row.marker if row else None))
        if wait is not None:
            self.waiting.put(path, wait, now, seen.fingerprint)
            return None
        if seen.digest is None and self.folder.reads_contents:
            digested = self._digests.pop(path, None)
            if digested is None or digested[0] != seen.version:
                self._digest_beside(path, seen.version)
                return None
            seen = replace(seen, digest=digested[1])
        return _Ready(path, row, seen)

    async def _adopt(self, ready: Sequence[_Ready], epoch: int) -> list[Found]:
        """Update the rows of files that were only touched; return those whose row has changed meanwhile."""
        files = [(one.path, one.row, str(one.seen.version)) for one in ready if one.row is not None]
        if not files:
            return []
        left = []
        for one, followed in zip(ready, await self.ledger.adopt(self.folder.name, files), strict=True):
            if followed:
                self._settle(one.path, one.seen.version, epoch)
            else:
                left.append(Found(one.path, one.seen.version))
        return left

    async def _announce(self, ready: Sequence[_Ready], as_of: int, epoch: int) -> tuple[int, list[Found]]:
        """Write the events of complete files to the journal and their versions to the ledger, in one step.

        Returns the number of events, and the files whose row has changed since it was read: they are considered again.
        """
        moment = datetime.now(UTC)
        announced: list[tuple[_Ready, str]] = []
        files: list[Announcement] = []
        spans: list[Any] = []
        for one in ready:
            seen = one.seen
            try:
                event = self._describer.event(one.path, seen, moment)
            except OSError:
                self.waiting.put(one.path, CompletenessWait(NO_NAME), time.monotonic(), seen.fingerprint)
                continue
            announced.append((one, event["subject"]))
            version = event["fileversion"]
            if tracing.is_on():
                named = {
                    "source": event["source"],
                    "subject": event["subject"],
                    "listener": f"files:{self.folder.name}",
                }
                spans.append(tracing.begin("sluice receive", None, **named))
                event[tracing.TRACEPARENT] = tracing.text_of(spans[-1])
            files.append(Announcement(one.path, one.row, version, tail(event), seen.digest, seen.marker))
        if not files:
            return 0, []
        answers = await self.ledger.announce(
            self.folder.name,
            files,
            as_of_ms=as_of,
            received=moment.isoformat(),
            remember_content=self.folder.source.rerun == "content",
        )
        for span, answer in zip(spans, answers, strict=bool(spans)):
            if answer.event_id is not None:
                span.set_attribute("sluice.event_id", answer.event_id)
        tracing.end(spans)
        left: list[Found] = []
        journalled: list[tuple[str, str]] = []
        for (one, subject), answer in zip(announced, answers, strict=True):
            if answer.event_id is None:
                left.append(Found(one.path, one.seen.version))
                continue
            self._settle(one.path, one.seen.version, epoch)
            if not answer.same_content:
                journalled.append((answer.event_id, subject))
        metrics.received.labels(f"files:{self.folder.name}").inc(len(journalled))
        self._say(journalled)
        return len(journalled), left

    def _settle(self, path: bytes, version: Version, epoch: int) -> None:
        self.waiting.drop(path)
        if epoch == self._epoch:
            self.settled.add(memory_of(path, version))

    def _digest_beside(self, path: bytes, version: Version) -> None:
        """Compute the digest of a file's content in a thread, without keeping other files waiting for it."""
        if path in self._digesting:
            return

        async def digest() -> None:
            try:
                found = await self.threads.read(self.examiner.digest, path)
                if found is not None:
                    self._digests[path] = found
            finally:
                del self._digesting[path]
            # Whatever the result, the file is examined again; the next scan makes up for a failure here.
            self.waiting.put(path, CompletenessWait("being read", 0.0), time.monotonic())

        self.waiting.put(path, CompletenessWait("being read"), time.monotonic())
        self._digesting[path] = asyncio.create_task(digest(), name=f"digest {shown(path)} {version}")

    def _say(self, journalled: Sequence[tuple[str, str]]) -> None:
        if len(journalled) > _LINE_EACH:
            log.info("files arrived", watch=self.folder.name, files=len(journalled), last_event_id=journalled[-1][0])
            return
        for event_id, subject in journalled:
            log.info("file arrived", watch=self.folder.name, event_id=event_id, file=visible(subject, 200))
