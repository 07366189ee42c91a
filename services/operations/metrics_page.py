"""The metrics page: totals of all processes, gauges of the present, and metrics of flows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from events.errors import Backpressure, TransientError
from services.common.metrics import Series, families
from services.operations.gauges import Value, gauge_families, of_readiness, of_reports
from services.operations.metric_totals import MetricTotals
from services.operations.readiness import Readiness
from services.store.connection import AsyncRedis
from services.store.dead_letters import DeadLetters
from sluice.display import visible

FLOW_PREFIX: Final = "flow_"
"""Prefix of the names of flows' metrics."""

LETTERS_SECONDS: Final = 15.0
"""How often the dead letters are counted by their codes."""

_MOST_FILES: Final = 100
_MOST_BYTES: Final = 1024**2
_OF_RULES: Final = ("sluice_rule_matches_total", "sluice_runs_created_total")
"""Counters that begin at zero for each rule, so that the first increment shows as an increase."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The page's data from Redis."""

    totals: Sequence[tuple[Series, float]] = ()
    values: Sequence[Value] = ()


@dataclass(frozen=True, slots=True)
class ProjectNames:
    """The names in the project file; each has its metrics, even if nothing has happened to it."""

    rules: Sequence[str] = ()
    watches: Sequence[str] = ()


@dataclass(slots=True)
class MetricsPage:
    """Any number of processes may serve it, with the same numbers; no counter goes back when one restarts."""

    redis: AsyncRedis
    names: Callable[[], ProjectNames]
    flows: Path
    """The folder with the metrics of flows."""
    _letters: list[Value] = field(default_factory=list)
    _counted_at: float = float("-inf")

    async def text(self, readiness: Readiness) -> bytes:
        """Return the page in Prometheus' text format; without Redis, only the metrics that do not need it."""
        try:
            kept = Kept(await MetricTotals(self.redis).read(), await self._values())
        except (TransientError, Backpressure):
            kept = Kept()
        return render(readiness, kept, self.names(), self.flows)

    async def _values(self) -> list[Value]:
        if time.monotonic() - self._counted_at > LETTERS_SECONDS:
            counts = await DeadLetters(self.redis).counts()
            self._letters = [("sluice_dead_letters", (code,), float(count)) for code, count in counts.items()]
            self._counted_at = time.monotonic()
        return self._letters


def render(readiness: Readiness, kept: Kept, names: ProjectNames, flows: Path | None = None) -> bytes:
    """Return the page.

    The metrics named ``flow_…`` come unchanged from the files ``*.prom`` of the folder ``flows``.
    """
    page = generate_latest(_Page(list(_all(readiness, kept, names, flows))))
    return visible(page.decode(), lines=True).encode()  # labels come from Redis, which may hold any text


class _Page(Collector):
    def __init__(self, found: Sequence[Metric]) -> None:
        self._found = found

    def collect(self) -> Sequence[Metric]:
        return self._found


def _all(readiness: Readiness, kept: Kept, names: ProjectNames, flows: Path | None) -> Iterator[Metric]:
    """Yield all metrics of the page: gauges, totals, and those of flows."""
    reports = [report for role in readiness.roles.values() for report in role.instances]
    written, unreadable = _of_flows(flows) if flows is not None else ([], 0)
    yield from gauge_families(
        [
            *of_readiness(readiness),
            *of_reports(reports, rules=names.rules, watches=names.watches),
            *kept.values,
            ("sluice_flow_metrics_unreadable", (), float(unreadable)),
        ]
    )
    yield from families(_with_zeros(kept.totals, names.rules))
    yield from written


def _of_flows(folder: Path) -> tuple[list[Metric], int]:
    """Return the metrics that flows have written, and the number of unreadable files."""
    unreadable = 0
    found: dict[str, Metric] = {}
    for path in sorted(folder.glob("*.prom"))[:_MOST_FILES]:
        try:
            with path.open(encoding="utf-8") as file:
                read = list(text_string_to_metric_families(file.read(_MOST_BYTES)))
        except (OSError, ValueError):
            unreadable += 1
            continue
        for family in read:
            if family.name.startswith(FLOW_PREFIX):
                found.setdefault(family.name, family)
    return list(found.values()), unreadable


def _with_zeros(totals: Iterable[tuple[Series, float]], rules: Iterable[str]) -> Iterator[tuple[Series, float]]:
    """Yield the totals, and zeros for the rules without one."""
    known: set[str] = set()
    for series, value in totals:
        known.add(series.field())
        yield Series(series.name, {name: visible(text) for name, text in series.labels.items()}), value
    for rule in rules:
        for name in _OF_RULES:
            series = Series(name, {"rule": rule})
            if series.field() not in known:
                yield series, 0.0
