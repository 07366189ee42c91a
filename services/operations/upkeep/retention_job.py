"""The retention job: keeps journal, finished events and history within their time and size."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from config.settings import HistorySettings, JournalSettings
from services.common.backoff import Backoff
from services.operations.upkeep.leased_job import run_leased
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


@dataclass(kw_only=True)
class RetentionJob:
    """Deletes entries past their retention that no store needs, in the router that holds the lease."""

    redis: AsyncRedis
    stores: Sequence[DispatchQueues | WindowStore | ParkedEvents]
    lease: Lease
    journal: JournalSettings
    history: HistorySettings
    turn_seconds: float = TURN_SECONDS
    _trimmed: int = 0
    _turns: int = 0

    def __post_init__(self) -> None:
        self._trouble = Backoff("tidy up", first_seconds=1, longest_seconds=30)

    async def run(self) -> None:
        """Delete until cancelled, whenever this process holds the lease."""
        await run_leased(
            self.tidy,
            lease=self.lease,
            seconds=self.turn_seconds,
            trouble=self._trouble,
            longest_turn_seconds=None,
        )

    async def _needed(self) -> list[str]:
        """Return the positions of the journal that the stores still need."""
        return [position for store in self.stores for position in await store.oldest_positions()]

    async def tidy(self) -> None:
        """One turn."""
        self._trimmed += await trim_stream(
            self.redis,
            STREAM,
            retention_seconds=self.journal.retention_seconds,
            max_entries=self.journal.max_entries,
            keep=self._needed,
        )
        await trim_stream(self.redis, FINISHED, retention_seconds=FINISHED_SECONDS, max_entries=FINISHED_ENTRIES)
        relieved = await relieve(self.redis, keep=self._needed)
        if relieved:
            log.warning("redis is nearly full: past events were deleted before their retention ended", events=relieved)
            self._trimmed += relieved
        forgotten = await forget_histories(self.redis, self.history)
        if forgotten:
            log.info("deleted the oldest histories", events=forgotten)
        if self.history.dead_letter_days is not None:
            expired = await DeadLetters(self.redis).expire(time.time() - self.history.dead_letter_days * 86_400)
            if expired:
                log.warning("discarded dead letters past their retention", letters=expired)
        if self._turns % _INDEX_TURNS == 0:
            await prune_indices(self.redis, self.history)
        self._turns += 1

    def status(self) -> Mapping[str, Any]:
        """For the role's report."""
        return self._trouble.status(trimmed=self._trimmed)
