"""The metrics of the installation: counters of the roles, numbers of their parts, and what flows have written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from services.operations.readiness import Readiness
from sluice.display import visible

_INSTANCE: Final = ("role", "instance")


FLOW_PREFIX: Final = "flow_"
"""How the names of metrics begin that flows may write."""
_MOST_FILES: Final = 100
_MOST_BYTES: Final = 1024**2


def scrape(readiness: Readiness, flows: Path | None = None) -> bytes:
    """Return the metrics in Prometheus' text format; every sample of a role is labelled with role and instance.

    From the files ``*.prom`` of the folder ``flows`` come those whose names begin with ``flow_``, as they are.
    """
    registry = CollectorRegistry()
    registry.register(_Reports(readiness))
    if flows is not None:
        registry.register(_OfFlows(flows))
    # Names and helps of metrics come from Redis, where any text may be.
    return visible(generate_latest(registry).decode(), lines=True).encode()


class _Reports(Collector):
    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("sluice_ready", "Whether all is ready", value=float(self._readiness.ready))
        expected = GaugeMetricFamily(
            "sluice_role_expected_ready", "Whether an expected role has a ready instance", labels=["role"]
        )
        ready = GaugeMetricFamily("sluice_role_ready", "Whether the role instance is ready", labels=_INSTANCE)
        for name, role in self._readiness.roles.items():
            expected.add_metric([visible(name)], float(role.ready))
            for report in role.silent:
                ready.add_metric((visible(name), visible(report["instance"])), 0.0)
        parts = GaugeMetricFamily(
            "sluice_part", "The numbers of a part's status", labels=[*_INSTANCE, "part", "number"]
        )
        counted: dict[str, Metric] = {}
        for report in (report for role in self._readiness.roles.values() for report in role.instances):
            labels = (visible(report["role"]), visible(report["instance"]))
            ready.add_metric(labels, float(report["ready"]))
            for part, status in report["parts"].items():
                for name, number in _numbers(status):
                    parts.add_metric([*labels, visible(part), visible(name)], number)
            for family in text_string_to_metric_families(report.get("metrics", "")):
                merged = counted.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    merged.samples.append(
                        sample._replace(labels=_visible(sample.labels) | dict(zip(_INSTANCE, labels, strict=True)))
                    )
        yield expected
        yield ready
        yield parts
        yield from counted.values()


class _OfFlows(Collector):
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        unreadable = 0
        found: dict[str, Metric] = {}
        for path in sorted(self._folder.glob("*.prom"))[:_MOST_FILES]:
            try:
                with path.open(encoding="utf-8") as file:
                    families = list(text_string_to_metric_families(file.read(_MOST_BYTES)))
            except (OSError, ValueError):
                unreadable += 1
                continue
            for family in families:
                if family.name.startswith(FLOW_PREFIX):
                    found.setdefault(family.name, family)
        yield GaugeMetricFamily(
            "sluice_flow_metrics_unreadable", "Files of flows that cannot be read", value=unreadable
        )
        yield from found.values()


def _visible(labels: Mapping[str, str]) -> dict[str, str]:
    return {name: visible(value) for name, value in labels.items()}


def _numbers(status: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in status.items():
        if isinstance(value, int | float):
            with suppress(OverflowError):  # anybody who can write to Redis can write a number of a thousand digits
                yield f"{prefix}{name}", float(value)
        elif isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{name}.")
