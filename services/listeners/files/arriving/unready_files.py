"""The unready files: what each waits for, since when, and when to examine it again."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from services.common.file_version import Version
from services.listeners.files.arriving.completeness import NO_NAME, UNREADABLE, WRITER_OPEN, CompletenessWait
from sluice.display import visible

_LOOKS_A_SECOND: Final = 500
"""Upper limit for examinations of all unready files together: 1 % of a core."""
_EXAMPLES: Final = 10

Fingerprint = tuple[Version, int]


@dataclass(slots=True)
class UnreadyFile:
    """One unready file. Times are of the caller's monotonic clock."""

    reason: str
    since: float
    fingerprint: Fingerprint | None
    unchanged_since: float
    next_at: float | None = None
    written_here: bool = False
    warned: bool = False


class UnreadyFiles:
    """At most ``limit`` files; the next scan finds a file again that had no place.

    ``changed`` is called when a file's next examination was scheduled.
    """

    def __init__(self, *, limit: int, changed: Callable[[], None] = lambda: None) -> None:
        self._limit = limit
        self._changed = changed
        self._entries: dict[bytes, UnreadyFile] = {}
        self._heap: list[tuple[float, int, bytes]] = []
        self._order = itertools.count()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, path: bytes) -> bool:
        return path in self._entries

    def scheduled(self, path: bytes) -> bool:
        """Whether the file's next examination is scheduled."""
        entry = self._entries.get(path)
        return entry is not None and entry.next_at is not None

    def paths(self) -> list[bytes]:
        """The paths of all unready files."""
        return list(self._entries)

    def past(self, path: bytes, fingerprint: Fingerprint, now: float) -> tuple[float, bool]:
        """Return for how many seconds the file has been unchanged, and whether it was seen being written."""
        entry = self._entries.get(path)
        if entry is None:
            return 0.0, False
        if entry.fingerprint != fingerprint:
            return 0.0, entry.written_here or (entry.fingerprint is not None and _written(entry, fingerprint))
        return now - entry.unchanged_since, entry.written_here

    def put(self, path: bytes, wait: CompletenessWait, now: float, fingerprint: Fingerprint | None = None) -> None:
        """Record that the file is unready, as examined at ``now``."""
        entry = self._entries.get(path)
        if entry is None:
            if len(self._entries) >= self._limit:
                return
            entry = self._entries[path] = UnreadyFile(wait.reason, now, fingerprint, now)
        elif entry.fingerprint != fingerprint:
            entry.written_here = entry.written_here or (fingerprint is not None and _written(entry, fingerprint))
            entry.fingerprint, entry.unchanged_since = fingerprint, now
        entry.reason = wait.reason
        entry.written_here = entry.written_here or wait.reason == WRITER_OPEN
        entry.next_at = self._next(wait, entry, now)
        if entry.next_at is not None:
            heapq.heappush(self._heap, (entry.next_at, next(self._order), path))
            self._changed()

    def drop(self, path: bytes) -> None:
        """Remove the file."""
        self._entries.pop(path, None)

    def due(self, now: float, count: int) -> list[bytes]:
        """Return up to ``count`` files to examine now; each is due once for each `put`."""
        found: list[bytes] = []
        while self._heap and self._heap[0][0] <= now and len(found) < count:
            at, _, path = heapq.heappop(self._heap)
            entry = self._entries.get(path)
            if entry is not None and entry.next_at == at:
                entry.next_at = None
                found.append(path)
        return found

    def next_at(self) -> float | None:
        """Return when the next file is due."""
        while self._heap:
            at, _, path = self._heap[0]
            entry = self._entries.get(path)
            if entry is not None and entry.next_at == at:
                return at
            heapq.heappop(self._heap)
        return None

    def overdue(self, now: float, seconds: float) -> list[tuple[bytes, UnreadyFile]]:
        """Return files that have been unready for more than ``seconds``, each of them once."""
        found = []
        for path, entry in self._entries.items():
            if not entry.warned and now - entry.since > seconds:
                entry.warned = True
                found.append((path, entry))
        return found

    def summary(self, now: float) -> Mapping[str, Any]:
        """For the status: the number of files by what they wait for, and the oldest by name."""
        oldest = sorted(self._entries.items(), key=lambda item: item[1].since)[:_EXAMPLES]
        return {
            "count": len(self._entries),
            "for": dict(Counter(entry.reason for entry in self._entries.values())),
            "oldest": [
                {"file": shown(path), "for": entry.reason, "seconds": round(now - entry.since, 1)}
                for path, entry in oldest
            ],
        }

    def _next(self, wait: CompletenessWait, entry: UnreadyFile, now: float) -> float | None:
        """Return when an unready file is examined again; None if only an event can change that.

        The more files wait, the less often each is examined.
        """
        if wait.seconds is not None:
            return now + max(wait.seconds, 0.001)
        share = len(self._entries) / _LOOKS_A_SECOND
        if wait.reason == WRITER_OPEN:
            return now + min(max((now - entry.since) / 4, 0.01), max(share, 0.05))
        if wait.reason in {UNREADABLE, NO_NAME}:
            return now + max(share, 1.0)
        return None


def shown(path: bytes) -> str:
    """Return a path for display: bytes that are not UTF-8 are replaced, invisible characters escaped."""
    return visible(path.decode("utf-8", "replace"), 200)


def _written(entry: UnreadyFile, fingerprint: Fingerprint) -> bool:
    if entry.fingerprint is None:
        return False
    (before, _), (after, _) = entry.fingerprint, fingerprint
    return before.inode == after.inode and before != after
