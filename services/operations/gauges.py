"""The gauges: of the roles, of their parts' reports, and of the backlog in Redis."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, TypeAlias

from prometheus_client.core import GaugeMetricFamily, Metric

from config.health import is_canary
from services.common.reasons import REASONS
from services.operations.backlog import BacklogPlace
from services.operations.readiness import Readiness
from sluice.display import visible

Value: TypeAlias = tuple[str, tuple[str, ...], float]
"""The name of a gauge, the values of its labels, and its value."""

GAUGES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "sluice_ready": ("Whether the installation is ready (1) or not (0).", ()),
    "sluice_degraded": ("Number of things that are wrong although all works.", ()),
    "sluice_reasons": ("Reasons that speak against the installation now, by their code.", ("code",)),
    "sluice_backlog": ("What waits in a place of Sluice.", ("place",)),
    "sluice_backlog_oldest_seconds": ("How long the oldest of what waits in a place has waited.", ("place",)),
    "sluice_canary_up": ("Whether the last canary came through (1) or not (0); absent where it is off.", ()),
    "sluice_canary_age_seconds": ("How long ago the last canary came to its end.", ()),
    "sluice_canary_step_seconds": ("How long a step of the last canary took.", ("step",)),
    "sluice_role_ready": ("Whether an instance of the role is ready (1) or none is (0).", ("role",)),
    "sluice_role_instances": ("Instances of the role that report.", ("role",)),
    "sluice_role_degraded": ("Number of things that are wrong with the role although it works.", ("role",)),
    "sluice_watch_up": ("Whether the watched folder is watched, and nothing is wrong with it.", ("watch",)),
    "sluice_watch_files": ("Files in the watched folder, by what became of them.", ("watch", "state")),
    "sluice_pubsub_buffered_bytes": ("Received on the channel and not in the journal yet.", ("listener",)),
    "sluice_rule_queued_runs": ("Decided runs of the rule that are not created yet.", ("rule",)),
    "sluice_rule_queued_oldest_seconds": ("How long the oldest of them has waited.", ("rule",)),
    "sluice_rule_held_runs": ("Decided runs that the rule holds back, as most of its last ones failed.", ("rule",)),
    "sluice_rule_parked_events": ("Events on which the templates of the rule fail.", ("rule",)),
    "sluice_window_events": ("Events that are gathered in windows.", ()),
    "sluice_runs_open": ("Flow runs that Sluice created and that are not over.", ()),
    "sluice_executor_slots": ("Slots of the executor.", ("executor",)),
    "sluice_executor_slots_ready": (
        "Slots of the executor that have a process, idle ones among them.",
        ("executor",),
    ),
    "sluice_executor_runs": ("Flow runs that have a process of the executor, waiting ones among them.", ("executor",)),
    "sluice_executor_runs_paused": ("Flow runs among them that wait.", ("executor",)),
    "sluice_dead_letters": ("Dead letters that nobody has replayed or discarded.", ("code",)),
    "sluice_flow_metrics_unreadable": ("Files with metrics of flows that cannot be read.", ()),
}
"""Every gauge, with its help and its labels."""

_OF_RULES: Final = ("queued_runs", "queued_oldest_seconds", "held_runs", "parked_events")
_FILES: Final = ("in_flight", "done", "failed", "unmatched")
_WATCH: Final = "files:"


def gauge_families(values: Iterable[Value]) -> Iterator[Metric]:
    """Return every gauge with its values; values with the same name and labels are added up."""
    sums: dict[str, dict[tuple[str, ...], float]] = {name: {} for name in GAUGES}
    for name, labels, value in values:
        shown = tuple(map(visible, labels))
        sums[name][shown] = sums[name].get(shown, 0.0) + value
    for name, (says, labels) in GAUGES.items():
        family = GaugeMetricFamily(name, says, labels=labels)
        for shown, value in sums[name].items():
            family.add_metric(shown, value)
        yield family


def of_readiness(readiness: Readiness) -> Iterator[Value]:
    """Return the gauges of the expected and the reporting roles; a dead one has a zero."""
    yield "sluice_ready", (), float(readiness.ready)
    yield "sluice_degraded", (), float(len(readiness.degraded))
    for code in REASONS:
        yield "sluice_reasons", (code,), float(sum(one.code == code for one in readiness.reasons))
    if readiness.canary is not None:
        yield "sluice_canary_up", (), float(readiness.canary.failed is None)
        yield "sluice_canary_age_seconds", (), time.time() - readiness.canary.at
        for step, seconds in readiness.canary.seconds.items():
            yield "sluice_canary_step_seconds", (step,), seconds
    for place, waiting in (readiness.backlog.places() if readiness.backlog is not None else {}).items():
        yield "sluice_backlog", (place,), float(waiting.count)
        yield "sluice_backlog_oldest_seconds", (place,), waiting.oldest_seconds or 0.0
    queues: dict[str, BacklogPlace] = {}
    for queue, waiting in (readiness.backlog.dispatch if readiness.backlog is not None else {}).items():
        rule = queue.partition(":")[0]
        queues[rule] = queues.get(rule, BacklogPlace()) + waiting
    for rule, waiting in queues.items():
        yield "sluice_rule_queued_runs", (rule,), float(waiting.count)
        yield "sluice_rule_queued_oldest_seconds", (rule,), waiting.oldest_seconds or 0.0
    for name, role in readiness.roles.items():
        yield "sluice_role_ready", (name,), float(role.ready)
        yield "sluice_role_instances", (name,), float(len(role.instances))
        yield "sluice_role_degraded", (name,), float(len(role.degraded))


def of_reports(reports: Iterable[Mapping[str, Any]], *, rules: Iterable[str], watches: Iterable[str]) -> list[Value]:
    """Return the gauges of the parts' reports: the maximum of values common to all instances, the sum of others."""
    shared: dict[tuple[str, tuple[str, ...]], float] = {
        **{(f"sluice_rule_{what}", (rule,)): 0.0 for rule in rules for what in _OF_RULES},
        **{("sluice_watch_up", (watch,)): 0.0 for watch in watches},
    }
    own: list[Value] = []
    for name, part in ((name, part) for report in reports for name, part in report["parts"].items()):
        for gauge, labels, value in _of_part(name, part):
            if gauge.startswith(("sluice_executor", "sluice_pubsub")):
                own.append((gauge, labels, value))
            else:
                shared[gauge, labels] = max(value, shared.get((gauge, labels), 0.0))
    return [*((*key, value) for key, value in shared.items()), *own]


def _of_part(name: str, part: Mapping[str, Any]) -> Iterator[Value]:
    if name.startswith(_WATCH) and not is_canary(name.removeprefix(_WATCH)):
        watch = name.removeprefix(_WATCH)
        yield "sluice_watch_up", (watch,), float(not part.get("degraded"))
        yield from _numbers("sluice_watch_files", part, **{state: (watch, state) for state in _FILES})
    elif name == "executor":
        labels = (str(part.get("name")),)
        yield from _numbers("sluice_executor_slots", part, slots=labels)
        yield from _numbers("sluice_executor_slots_ready", part, slots_ready=labels)
        yield from _numbers("sluice_executor_runs", part, running=labels)
        yield from _numbers("sluice_executor_runs_paused", part, paused=labels)
    elif name == "dispatcher":
        for held in part.get("held", ()):
            with suppress(TypeError, KeyError):
                yield from _numbers("sluice_rule_held_runs", held, waiting=(str(held["rule"]),))
    elif name == "router" and isinstance(part.get("parked"), dict):
        yield from _numbers("sluice_rule_parked_events", part["parked"], **{rule: (rule,) for rule in part["parked"]})
    elif name == "windows":
        yield from _numbers("sluice_window_events", part, events=())
    elif name == "outcomes":
        yield from _numbers("sluice_runs_open", part, open_runs=())
    elif name.startswith("redis:"):
        yield from _numbers("sluice_pubsub_buffered_bytes", part, buffered_bytes=(name,))


def _numbers(gauge: str, part: Mapping[str, Any], **wanted: tuple[str, ...]) -> Iterator[Value]:
    """Return those of the ``wanted`` fields, each with its labels, that are numbers: a report may hold anything."""
    for field, labels in wanted.items():
        value = part.get(field)
        if isinstance(value, int | float):
            with suppress(OverflowError):
                yield gauge, labels, float(value)
