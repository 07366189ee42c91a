"""docs/monitoring.md, the dashboard and the alert rules name the metrics that there are, and no others."""

from __future__ import annotations

from config.settings import CHECKOUT
from services.common.metrics import REGISTRY, families
from services.operations.gauges import GAUGES


def kept() -> dict[str, tuple[str, str, list[str]]]:
    """Of each metric its type, what it says and its labels."""
    labels = {
        collector.describe()[0].name: list(collector._labelnames)  # type: ignore[attr-defined]
        for collector in REGISTRY._collector_to_names
    }
    found = {
        family.name + "_total" * (family.type == "counter"): (family.type, family.documentation, labels[family.name])
        for family in families(())
    }
    return found | {name: ("gauge", says, list(of)) for name, (says, of) in GAUGES.items()}


def test_the_documentation_lists_every_metric() -> None:
    wanted = [
        f"| `{name}` | {kind} | {', '.join(labels)} | {says} |" for name, (kind, says, labels) in sorted(kept().items())
    ]
    lines = (CHECKOUT / "docs" / "monitoring.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("| `sluice_")] == wanted
