"""The retention job: keeps journal, finished events and history within their time and size."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog

from config.settings import HistorySettings, JournalSettings
from events.errors import Backpressure, TransientError
from services.common.backoff import Backoff, heed_cancellation
from services.store.connection import AsyncRedis
from services.store.dead_letters import DeadLetters
from services.store.events.finished_events import FINISHED
from services.store.events.journal import STREAM
from services.store.lease import Lease
from services.store.retention import forget_histories, prune_indices, relieve, trim_stream
from services.store.rules.parked_events import ParkedEvents
from services.store.rules.windows import WindowStore
from services.store.runs.dispatch_queues import DispatchQueues

LEASE_SECONDS: Final = 60.0
TURN_SECONDS: Final = 10.0
_INDEX_TURNS: Final = 60
"""Number of runs of the job between two prunings of the indices."""

FINISHED_SECONDS: Final = 86_400.0
FINISHED_ENTRIES: Final = 100_000

log = structlog.get_logger()


class RetentionJob:
    """Deletes what is past its retention, in the router that holds the lease, and nothing that a store still needs."""

    def __init__(
        self,
        *,
        redis: AsyncRedis,
        stores: Sequence[DispatchQueues | WindowStore | ParkedEvents],
        lease: Lease,
        journal: JournalSettings,
        history: HistorySettings,
        turn_seconds: float = TURN_SECONDS,
    ) -> None:
        self._redis = redis
        self._stores = stores
        self._lease = lease
        self._journal = journal
        self._history = history
        self._turn_seconds = turn_seconds
        self._trouble = Backoff("tidy up", first_seconds=1, longest_seconds=30)
        self._trimmed = 0

    async def run(self) -> None:
        """Delete until cancelled, whenever this process holds the lease."""
        holding = False
        turns = 0
        try:
            while True:
                try:
                    holding = await (self._lease.renew() if holding else self._lease.acquire())
                    if holding:
                        await self.tidy(indices=turns % _INDEX_TURNS == 0)
                        turns += 1
                    self._trouble.worked()
                except (TransientError, Backpressure) as error:
                    await self._trouble.after(error)
                await asyncio.sleep(self._turn_seconds)
                heed_cancellation()
        finally:
            if holding:
                await asyncio.wait_for(self._lease.release(), 1)

    async def _needed(self) -> list[str]:
        """Return the positions of the journal that the stores still need."""
        return [position for store in self._stores for position in await store.oldest_positions()]

    async def tidy(self, *, indices: bool = True) -> None:
        """One turn."""
        self._trimmed += await trim_stream(
            self._redis,
            STREAM,
            retention_seconds=self._journal.retention_seconds,
            max_entries=self._journal.max_entries,
            keep=self._needed,
        )
        await trim_stream(self._redis, FINISHED, retention_seconds=FINISHED_SECONDS, max_entries=FINISHED_ENTRIES)
        relieved = await relieve(self._redis, keep=self._needed)
        if relieved:
            log.warning("redis is nearly full: past events were deleted before their retention ended", events=relieved)
            self._trimmed += relieved
        forgotten = await forget_histories(self._redis, self._history)
        if forgotten:
            log.info("deleted the oldest histories", events=forgotten)
        if self._history.dead_letter_days is not None:
            expired = await DeadLetters(self._redis).expire(time.time() - self._history.dead_letter_days * 86_400)
            if expired:
                log.warning("discarded dead letters that nobody has seen to", letters=expired)
        if indices:
            await prune_indices(self._redis, self._history)

    def status(self) -> Mapping[str, Any]:
        """For the role's report."""
        status: dict[str, Any] = {"trimmed": self._trimmed}
        if self._trouble.trouble:
            status["degraded"] = self._trouble.trouble
        return status
