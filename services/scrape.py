"""The metrics of the whole installation on one page: what each role counts, and the numbers of its parts' statuses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from services.health import read_reports
from services.store.connection import AsyncRedis

_INSTANCE: Final = ("role", "instance")


async def scrape(redis: AsyncRedis) -> bytes:
    """In Prometheus' text format; every sample says of which role and instance it is."""
    registry = CollectorRegistry()
    registry.register(_Reports(await read_reports(redis)))
    return generate_latest(registry)


class _Reports(Collector):
    def __init__(self, reports: list[dict[str, Any]]) -> None:
        self._reports = reports

    def collect(self) -> Iterator[Metric]:
        ready = GaugeMetricFamily("sluice_role_ready", "Whether the role instance is ready", labels=_INSTANCE)
        parts = GaugeMetricFamily(
            "sluice_part", "The numbers of a part's status", labels=[*_INSTANCE, "part", "number"]
        )
        counted: dict[str, Metric] = {}
        for report in self._reports:
            labels = (report["role"], report["instance"])
            ready.add_metric(labels, float(report["ready"]))
            for part, status in report["parts"].items():
                for name, number in _numbers(status):
                    parts.add_metric([*labels, part, name], number)
            for family in text_string_to_metric_families(report.get("metrics", "")):
                merged = counted.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    merged.samples.append(
                        sample._replace(labels={**sample.labels, **dict(zip(_INSTANCE, labels, strict=True))})
                    )
        yield ready
        yield parts
        yield from counted.values()


def _numbers(status: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in status.items():
        if isinstance(value, int | float):
            yield f"{prefix}{name}", float(value)
        elif isinstance(value, dict):
            yield from _numbers(value, f"{prefix}{name}.")
