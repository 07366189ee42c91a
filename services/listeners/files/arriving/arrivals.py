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
    CompletenessPolicy,
    CompletenessWait,
    Past,
    readiness,
)
from services.listeners.files.arriving.describe import Describer, tail
from services.listeners.files.arriving.known_files import Known, KnownVerdict, judge, known
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

Checkpoint = Callable[[str], None]
"""Called with the name of a completed step; tests end the process there."""


@dataclass(frozen=True, slots=True)
class _Ready:
    path: bytes
    row: Row | None
    seen: Examined


class Arrivals:
    """Decides on the files of one watch. ``settled`` has the files that need no further check until they change.

    ``trust_clock``: whether file times are of this machine's clock. `consider` may be called concurrently, also for the
    same file: the ledger accepts one announcement.
    """

    def __init__(
        self,
        *,
        folder: Folder,
        ledger: Ledger,
        examiner: Examiner,
        waiting: UnreadyFiles,
        threads: WatchThreads,
        trust_clock: Callable[[], bool] = lambda: True,
        checkpoint: Checkpoint = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._ledger = ledger
        self._examiner = examiner
        self._waiting = waiting
        self._threads = threads
        self._trust_clock = trust_clock
        self._checkpoint = checkpoint
        self._clock = clock
        self._describer = Describer(folder)
        self._policy = CompletenessPolicy(folder.source.ready, folder.stable_seconds, folder.quiet_seconds)
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
        epoch = self._epoch
        versions = [(file.path, str(file.version)) for file in found]
        rows, as_of = await self._ledger.compare(self._folder.name, versions)
        doubtful: list[tuple[Found, Row | None]] = []
        for file, row in zip(found, rows, strict=True):
            if row is True:
                self._settle(file.path, file.version, epoch)
            else:
                doubtful.append((file, row))
        if not doubtful:
            return 0, []
        looks = await self._threads.look(self._look, [file.path for file, _ in doubtful])
        ready = [
            one
            for (file, row), seen in zip(doubtful, looks, strict=True)
            if (one := self._sift(file.path, row, seen, epoch)) is not None
        ]
        if not ready:
            return 0, []
        rerun = self._folder.source.rerun
        verdicts = [(one, judge(one.row, one.seen, rerun)) for one in ready]
        left = await self._adopt([one for one, verdict in verdicts if verdict is KnownVerdict.ADOPT], epoch)
        new = [one for one, verdict in verdicts if verdict is KnownVerdict.ANNOUNCE]
        announced, more_left = await self._announce(new, as_of, epoch)
        return announced, left + more_left

    def _look(self, paths: Sequence[bytes]) -> list[Examined | UnreadableFile | None]:
        return [self._examiner.examine(path) for path in paths]

    def _sift(self, path: bytes, row: Row | None, seen: Examined | UnreadableFile | None, epoch: int) -> _Ready | None:
        now = self._clock()
        if seen is None:
            self._waiting.drop(path)
            return None
        if isinstance(seen, UnreadableFile):
            self._waiting.put(path, CompletenessWait(UNREADABLE), now)
            return None
        if known(row, seen.version) is Known.SAME:
            self._settle(path, seen.version, epoch)
            return None
        unchanged, written_here = self._waiting.past(path, seen.fingerprint, now)
        if self._trust_clock():
            unchanged = max(unchanged, (time.time_ns() - seen.ctime_ns) / 1e9)
        wait = readiness(self._policy, seen, Past(unchanged, written_here, row.marker if row else None))
        if wait is not None:
            self._waiting.put(path, wait, now, seen.fingerprint)
            return None
        if seen.digest is None and self._folder.reads_contents:
            digested = self._digests.pop(path, None)
            if digested is None or digested[0] != seen.version:
                self._digest_beside(path, seen.version)
                return None
            seen = replace(seen, digest=digested[1])
        return _Ready(path, row, seen)

    async def _adopt(self, ready: Sequence[_Ready], epoch: int) -> list[Found]:
        files = [(one.path, one.row, str(one.seen.version)) for one in ready if one.row is not None]
        if not files:
            return []
        left = []
        for one, followed in zip(ready, await self._ledger.adopt(self._folder.name, files), strict=True):
            if followed:
                self._settle(one.path, one.seen.version, epoch)
            else:
                left.append(Found(one.path, one.seen.version))
        return left

    async def _announce(self, ready: Sequence[_Ready], as_of: int, epoch: int) -> tuple[int, list[Found]]:
        moment = datetime.now(UTC)
        announced: list[tuple[_Ready, str]] = []
        files: list[Announcement] = []
        spans: list[Any] = []
        for one in ready:
            seen = one.seen
            try:
                event = self._describer.event(one.path, seen, moment)
            except OSError:
                self._waiting.put(one.path, CompletenessWait(NO_NAME), self._clock(), seen.fingerprint)
                continue
            announced.append((one, event["subject"]))
            version = event["fileversion"]
            if tracing.is_on():
                named = {
                    "source": event["source"],
                    "subject": event["subject"],
                    "listener": f"files:{self._folder.name}",
                }
                spans.append(tracing.begin("sluice receive", None, **named))
                event[tracing.TRACEPARENT] = tracing.text_of(spans[-1])
            files.append(Announcement(one.path, one.row, version, tail(event), seen.digest, seen.marker))
        if not files:
            return 0, []
        self._checkpoint("seen")
        answers = await self._ledger.announce(
            self._folder.name,
            files,
            as_of_ms=as_of,
            received=moment.isoformat(),
            remember_content=self._folder.source.rerun == "content",
        )
        for span, answer in zip(spans, answers, strict=bool(spans)):
            if answer.event_id is not None:
                span.set_attribute("sluice.event_id", answer.event_id)
        tracing.end(spans)
        self._checkpoint("journalled")
        left: list[Found] = []
        journalled: list[tuple[str, str]] = []
        for (one, subject), answer in zip(announced, answers, strict=True):
            if answer.event_id is None:
                left.append(Found(one.path, one.seen.version))
                continue
            self._settle(one.path, one.seen.version, epoch)
            if not answer.same_content:
                journalled.append((answer.event_id, subject))
        metrics.received.labels(f"files:{self._folder.name}").inc(len(journalled))
        self._say(journalled)
        return len(journalled), left

    def _settle(self, path: bytes, version: Version, epoch: int) -> None:
        self._waiting.drop(path)
        if epoch == self._epoch:
            self.settled.add(memory_of(path, version))

    def _digest_beside(self, path: bytes, version: Version) -> None:
        if path in self._digesting:
            return

        async def digest() -> None:
            try:
                found = await self._threads.read(self._examiner.digest, path)
                if found is not None:
                    self._digests[path] = found
            finally:
                del self._digesting[path]
            # Whatever the result, the file is examined again; the next scan makes up for a failure here.
            self._waiting.put(path, CompletenessWait("being read", 0.0), self._clock())

        self._waiting.put(path, CompletenessWait("being read"), self._clock())
        self._digesting[path] = asyncio.create_task(digest(), name=f"digest {shown(path)} {version}")

    def _say(self, journalled: Sequence[tuple[str, str]]) -> None:
        if len(journalled) > _LINE_EACH:
            log.info("files arrived", watch=self._folder.name, files=len(journalled), last_event_id=journalled[-1][0])
            return
        for event_id, subject in journalled:
            log.info("file arrived", watch=self._folder.name, event_id=event_id, file=visible(subject, 200))
