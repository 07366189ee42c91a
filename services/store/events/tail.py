"""Follows the journal, with the rules' decisions on its events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

from services.store.connection import AsyncRedis, text
from services.store.events.event_history import EventHistory
from services.store.events.history import History, Query, as_asked, entries_of
from services.store.events.journal import STREAM, JournalEntry, position_at

_LOOK_SECONDS: Final = 0.2
"""Interval of checks whether the events that were read have been decided on."""

_IDLE_SECONDS: Final = 1.0
_MOST: Final = 1000
"""Limit of events that are read and not decided on; further ones are read later."""

_LATE_SECONDS: Final = 5.0


class Tail:
    """Reads without a consumer group, so that no router misses an entry. Raises `TransientError`."""

    def __init__(self, redis: AsyncRedis, history: History) -> None:
        self._redis = redis
        self._history = history

    async def follow(
        self, query: Query, *, since: float | None = None, on_backlog: Callable[[int], None] = lambda _count: None
    ) -> AsyncIterator[EventHistory]:
        """Yield each event that matches ``query`` once it is decided on, from now or from ``since`` (epoch seconds) on.

        ``on_backlog`` is called once when events have waited for the router for some seconds. Replays are left out,
        because their events have been shown before.
        """
        position = await self._end() if since is None else position_at(since)
        open_: dict[str, JournalEntry] = {}
        late_at: float | None = None
        while True:
            if len(open_) < _MOST:
                position, entries = await self._read(position, block_seconds=_LOOK_SECONDS if open_ else _IDLE_SECONDS)
                open_ |= {one.position: one for one in entries if not one.replay and query.matches(one.event)}
            else:
                await asyncio.sleep(_LOOK_SECONDS)
            for found in await self._history.of_entries(list(open_.values())):
                if found.judged:
                    del open_[found.position]
                    if as_asked(query, found):
                        yield found
            now = time.monotonic()
            late_at = None if not open_ else late_at or now + _LATE_SECONDS
            if late_at is not None and late_at <= now:
                on_backlog(len(open_))
                late_at = float("inf")

    async def _end(self) -> str:
        rows: Any = await self._redis.xrevrange(STREAM, count=1)
        return text(rows[0][0]) if rows else "0-0"

    async def _read(self, position: str, *, block_seconds: float) -> tuple[str, list[JournalEntry]]:
        found: Any = await self._redis.xread({STREAM: position}, count=_MOST, block=int(block_seconds * 1000))
        rows = found[0][1] if found else []
        return text(rows[-1][0]) if rows else position, entries_of(rows)
