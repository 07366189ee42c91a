"""The counters and histograms of the roles, each defined once; the numbers of all processes are added up in Redis.

Names and units follow Prometheus' conventions: a base unit in the name, ``_total`` for counters. Labels have few
values: names in the project file, and codes and outcomes defined in the code. docs/monitoring.md has a row for each.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # when a process began is nothing that can be added up

REGISTRY: Final = CollectorRegistry(auto_describe=True)
"""Sluice's own: Prometheus' default one would bring the metrics of any library that registers some."""

_MOMENTS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_STEPS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
_RUNS: Final = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0, 604_800.0)


METRICS: Final[dict[str, tuple[Counter | Histogram, frozenset[str]]]] = {}
"""Every metric with its labels, by the name of its family."""


def _counter(name: str, says: str, *labels: str) -> Counter:
    found = Counter(name, says, labels, registry=REGISTRY)
    METRICS[name] = found, frozenset(labels)
    return found


def _seconds(name: str, says: str, *labels: str, buckets: tuple[float, ...] = _STEPS) -> Histogram:
    found = Histogram(name, says, labels, buckets=buckets, registry=REGISTRY)
    METRICS[name] = found, frozenset(labels)
    return found


# Messages that a listener may acknowledge: journalled, known already, or kept as dead letters.
received = _counter(
    "sluice_messages_received", "Messages received that are in the journal or kept as dead letters.", "listener"
)

# Messages among them that were refused and kept as dead letters; the code is the dead letter's.
rejected = _counter(
    "sluice_messages_rejected", "Messages that listeners refused and kept as dead letters.", "listener", "code"
)

# From passing a batch on until the journal held it, without retries.
emit_seconds = _seconds(
    "sluice_emit_seconds",
    "Time to write one batch of a listener to the journal, without retries.",
    "listener",
    buckets=_MOMENTS,
)

# Attempts that failed because Redis (or what the sink uses) was away or full.
retries = _counter(
    "sluice_listener_retries", "Failed attempts of listeners to write to the journal, which they repeat.", "listener"
)

# Entries that another consumer had read and not acknowledged before its time ran out.
claimed = _counter("sluice_stream_claimed", "Entries of source streams taken over from dead consumers.", "listener")

# Pub/sub: times without a subscription, when what was published is gone, and how long they were.
gaps = _counter("sluice_pubsub_gaps", "Interruptions of a subscription.", "listener")
gap_seconds = _counter(
    "sluice_pubsub_gap_seconds", "Seconds without a subscription, in which published messages are lost.", "listener"
)

# Pub/sub: messages without an id of their own that came when another listener may have been the active one.
left_to_successor = _counter(
    "sluice_pubsub_left_to_successor", "Messages dropped by a listener that had lost its lease.", "listener"
)

http_answers = _counter("sluice_http_requests", "HTTP requests, by route and status.", "route", "status")
# Refused because of the caller or its rate: unauthorized, forbidden, too-many, bad-signature, replayed.
http_refused = _counter("sluice_http_refused", "HTTP calls refused because of their caller or its rate.", "reason")

routed = _counter("sluice_events_routed", "Events that the rules have decided on, replays included.")
matched = _counter("sluice_rule_matches", "Events that a rule has matched.", "rule")

# An event's path, step by step. The clocks are those of the hosts and of Redis; negative times count as zero.
journal_seconds = _seconds(
    "sluice_event_journal_seconds", "Time from an event's own time until the journal held it.", "rule"
)
decision_seconds = _seconds(
    "sluice_event_decision_seconds", "Time from the journal until the rules had decided on the event.", "rule"
)
creation_seconds = _seconds(
    "sluice_run_creation_seconds", "Time from the decision until Prefect had created the flow run.", "rule"
)
start_seconds = _seconds(
    "sluice_run_start_seconds",
    "Time from a flow run's creation, or from the time that it was scheduled for, until its flow began.",
    "rule",
)
latency_seconds = _seconds(
    "sluice_event_latency_seconds", "Time from the journal until the flow of the event's run began.", "rule"
)
duration_seconds = _seconds(
    "sluice_run_duration_seconds",
    "Time from the beginning of a flow until its run was over, its waits included.",
    "rule",
    buckets=_RUNS,
)
created = _counter("sluice_runs_created", "Flow runs created in Prefect.", "rule")
ended = _counter("sluice_runs_ended", "Flow runs that are over, by the type of their last state.", "rule", "state")

letters = _counter("sluice_dead_letters_kept", "Failures that were kept as dead letters.", "kind", "code")

signals = _counter(
    "sluice_signals", "Outcomes of signals; one that was buffered counts again when it is final.", "outcome"
)
signal_seconds = _seconds(
    "sluice_signal_outcome_seconds", "Time from accepting a signal until its outcome was recorded.", "outcome"
)

_TYPES: Final = frozenset({"counter", "histogram"})


class Series(NamedTuple):
    """One time series: the name of its samples, and its labels."""

    name: str
    labels: Mapping[str, str]

    def field(self) -> str:
        """Return it as text, the same for the same series."""
        return json.dumps([self.name, dict(sorted(self.labels.items()))], separators=(",", ":"))

    @classmethod
    def parse(cls, field: bytes | str) -> Series:
        """`field` as a value; raises `ValueError` or `TypeError` for anything else."""
        name, labels = json.loads(field)
        if not (isinstance(name, str) and all(isinstance(one, str) for one in labels.values())):
            raise TypeError("not a series")
        return cls(name, labels)


class Gains:
    """The increase of this process's metrics since it was last added to the totals."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._registry = registry
        self._added: dict[str, float] = {}
        self._fields: dict[tuple[Any, ...], str] = {}
        """Cached fields: making one takes longer than all else here."""

    def now(self) -> dict[str, float]:
        """Return each series that is new, even at zero, or has increased, with its increase."""
        gains: dict[str, float] = {}
        for family in self._registry.collect():
            for sample in family.samples if family.type in _TYPES else ():
                known = (sample.name, *sample.labels.values())
                field = self._fields.get(known)
                if field is None:
                    field = self._fields[known] = Series(sample.name, sample.labels).field()
                gain = sample.value - self._added.get(field, 0.0)
                if gain or field not in self._added:
                    gains[field] = gain
        return gains

    def added(self, gains: Mapping[str, float]) -> None:
        """Record that these increases are in the totals."""
        for field, gain in gains.items():
            self._added[field] = self._added.get(field, 0.0) + gain


def families(totals: Iterable[tuple[Series, float]]) -> Iterator[Metric]:
    """Return every metric of the roles with its samples in ``totals``, if it has any.

    A series that no metric of this version has, or not with these labels, is left out.
    """
    samples: dict[str, list[tuple[Series, float]]] = {}
    for series, value in totals:
        samples.setdefault(series.name, []).append((series, value))
    for collector, labels in METRICS.values():
        (family,) = collector.describe()
        merged = Metric(family.name, family.documentation, family.type)
        suffixes = ("_total",) if family.type == "counter" else ("_bucket", "_sum", "_count")
        for suffix in suffixes:
            wanted = {*labels, "le"} if suffix == "_bucket" else set(labels)
            name = family.name + suffix
            for series, value in sorted(samples.get(name, ()), key=_order):
                if set(series.labels) == wanted:
                    merged.add_sample(name, dict(series.labels), value)
        if family.type == "counter" and not labels and not merged.samples:
            merged.add_sample(f"{family.name}_total", {}, 0.0)
        yield merged


def _order(total: tuple[Series, float]) -> tuple[list[tuple[str, str]], float]:
    labels = total[0].labels
    others = sorted((name, value) for name, value in labels.items() if name != "le")
    try:
        return others, float(labels.get("le", "0"))
    except ValueError:
        return others, 0.0
