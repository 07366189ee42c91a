"""Keeps the overview in Prefect up to date, as an artifact: one instance writes it, only when it has changed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Final

from config.health import is_canary
from services.common.backoff import Backoff
from services.operations.in_prefect.artifact import MarkdownArtifact
from services.operations.in_prefect.overview import Minute, Overview, body, head
from services.operations.metric_totals import MetricTotals
from services.operations.readiness import Readiness
from services.operations.upkeep.leased_job import run_leased
from services.prefect_api.client import PrefectApi
from services.prefect_api.run_view import view
from services.store.connection import AsyncRedis
from services.store.dead_letters import DeadLetters, LetterQuery
from services.store.lease import Lease

TURN_SECONDS: Final = 10.0
UNCHANGED: Final = timedelta(minutes=5)
"""Greatest age of the page's time while nothing else changes."""

_MINUTES: Final = 60
_WAITING_SHOWN: Final = 20
_LETTERS_READ: Final = 1000
_TOTALS: Final = {
    "events": "sluice_events_routed_total",
    "runs": "sluice_runs_created_total",
    "latency_seconds": "sluice_event_latency_seconds_sum",
    "started": "sluice_event_latency_seconds_count",
}


@dataclass(kw_only=True)
class OverviewJob:
    """A part of each router, active in the one that holds the lease."""

    redis: AsyncRedis
    prefect: PrefectApi
    readiness: Callable[[], Awaitable[Readiness]]
    lease: Lease
    artifact: MarkdownArtifact
    project: str | None
    turn_seconds: float = TURN_SECONDS
    _samples: deque[tuple[float, dict[str, float]]] = field(default_factory=lambda: deque(maxlen=_MINUTES + 1))
    _written: tuple[str, datetime] | None = None
    _writes: int = 0

    def __post_init__(self) -> None:
        self._totals = MetricTotals(self.redis)
        self._letters = DeadLetters(self.redis)
        self._trouble = Backoff("write the overview in Prefect", first_seconds=2, longest_seconds=60)

    async def run(self) -> None:
        """Write until cancelled."""
        await run_leased(
            self.turn, lease=self.lease, seconds=self.turn_seconds, trouble=self._trouble, ended=self._forget
        )

    def _forget(self) -> None:
        self._written = None

    async def turn(self) -> None:
        """Write the page unless it is unchanged."""
        now = datetime.now(UTC)
        overview = Overview(
            project=self.project,
            ui=self.prefect.ui,
            readiness=await self.readiness(),
            waiting=await self._waiting(),
            letters=await self._by_code(),
            minutes=await self._minutes(),
        )
        text = body(overview, now=now)
        if self._written is not None and self._written[0] == text and now - self._written[1] < UNCHANGED:
            return
        await self.artifact.write(head(overview, now=now) + text)
        self._written = text, now
        self._writes += 1

    async def _waiting(self) -> list[Any]:
        asked = {
            "flow_runs": {"state": {"type": {"any_": ["PAUSED"]}}},
            "limit": _WAITING_SHOWN,
            "sort": "EXPECTED_START_TIME_ASC",
        }
        found = await self.prefect.request("POST", "/flow_runs/filter", once=True, json=asked)
        return [view(run) for run in found if not is_canary(run["name"])]

    async def _by_code(self) -> dict[str, tuple[int, datetime]]:
        found: dict[str, tuple[int, datetime]] = {}
        for letter in await self._letters.search(LetterQuery(), limit=_LETTERS_READ):
            count, last = found.get(letter.code, (0, letter.last_failed))
            found[letter.code] = count + 1, max(last, letter.last_failed)
        return found

    async def _minutes(self) -> list[Minute]:
        """Return the throughput by minute since this process has held the lease."""
        totals = dict.fromkeys(_TOTALS, 0.0)
        names = {series: name for name, series in _TOTALS.items()}
        for series, value in await self._totals.read():
            if series.name in names:
                totals[names[series.name]] += value
        moment = time.monotonic()
        if not self._samples or moment - self._samples[-1][0] >= timedelta(minutes=1).total_seconds():
            self._samples.append((moment, totals))
        samples = [*(sample for _, sample in self._samples), totals]
        return [
            Minute(**{name: max(0.0, after[name] - before[name]) for name in _TOTALS})
            for before, after in pairwise(samples)
        ]

    def status(self) -> Mapping[str, Any]:
        """For the role's report."""
        return self._trouble.status(written=self._writes)
