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
    "sluice_degraded": ("Number of problems with which the installation still works.", ()),
    "sluice_reasons": ("Number of present reasons for not being ready or being degraded, by code.", ("code",)),
    "sluice_backlog": ("Number of entries that wait in a place, such as the journal or the runs queue.", ("place",)),
    "sluice_backlog_oldest_seconds": ("Age of the oldest entry that waits in a place.", ("place",)),
    "sluice_canary_up": ("Whether the last canary succeeded (1) or not (0); absent if the canary is off.", ()),
    "sluice_canary_age_seconds": ("Time since the last canary ended.", ()),
    "sluice_canary_step_seconds": ("Duration of a step of the last canary.", ("step",)),
    "sluice_role_ready": ("Whether an instance of the role is ready (1) or none is (0).", ("role",)),
    "sluice_role_instances": ("Number of the role's instances that report.", ("role",)),
    "sluice_role_degraded": ("Number of problems with which the role still works.", ("role",)),
    "sluice_watch_up": ("Whether the folder is watched without a problem (1) or not (0).", ("watch",)),
    "sluice_watch_files": (
        "Files in the watched folder, by state: in_flight, done, failed, unmatched.",
        ("watch", "state"),
    ),
    "sluice_pubsub_buffered_bytes": ("Bytes received on the channel that are not in the journal yet.", ("listener",)),
    "sluice_rule_queued_runs": ("Queued runs of the rule, which Prefect has not created yet.", ("rule",)),
    "sluice_rule_queued_oldest_seconds": ("Age of the oldest queued run of the rule.", ("rule",)),
    "sluice_rule_held_runs": ("Queued runs held because most of the rule's last runs failed.", ("rule",)),
    "sluice_rule_parked_events": ("Parked events, on which the rule's templates fail.", ("rule",)),
    "sluice_window_events": ("Events gathered in windows.", ()),
    "sluice_runs_open": ("Active flow runs that Sluice created.", ()),
    "sluice_executor_slots": ("Slots that the executor may have, each for one flow run at a time.", ("executor",)),
    "sluice_executor_slots_ready": (
        "Slots of the executor that have a process, idle ones included.",
        ("executor",),
    ),
    "sluice_executor_runs": ("Flow runs with a process of the executor, waiting ones included.", ("executor",)),
    "sluice_executor_runs_paused": ("Waiting flow runs with a process of the executor.", ("executor",)),
    "sluice_dead_letters": ("Dead letters that nobody has replayed or discarded.", ("code",)),
    "sluice_flow_metrics_unreadable": ("Unreadable files with metrics of flows.", ()),
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
    """Yield the gauges of one part; a report of another version may lack fields, whose gauges are then missing."""
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
