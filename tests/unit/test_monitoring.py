"""docs/monitoring.md, the dashboard and the alert rules name the metrics that there are, and no others."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from config.settings import CHECKOUT
from services.common.metrics import METRICS, families
from services.operations.gauges import GAUGES


def kept() -> dict[str, tuple[str, str, list[str]]]:
    """Of each metric its type, what it says and its labels."""
    found = {
        family.name + "_total" * (family.type == "counter"): (
            family.type,
            family.documentation,
            sorted(METRICS[family.name][1]),
        )
        for family in families(())
    }
    return found | {name: ("gauge", says, list(of)) for name, (says, of) in GAUGES.items()}


def test_the_documentation_lists_every_metric() -> None:
    wanted = [
        f"| `{name}` | {kind} | {', '.join(labels)} | {says} |" for name, (kind, says, labels) in sorted(kept().items())
    ]
    lines = (CHECKOUT / "docs" / "monitoring.md").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("| `sluice_")] == wanted


ALERTS = CHECKOUT / "deploy" / "prometheus" / "alerts.yaml"
DASHBOARD = CHECKOUT / "deploy" / "grafana" / "sluice.json"
OF_PROMETHEUS = {"job", "instance", "le"}


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return list(group["rules"])


def panels() -> list[dict[str, Any]]:
    return list(json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"])


def expressions() -> Iterator[str]:
    for alert in alerts():
        yield alert["expr"]
    for panel in panels():
        for target in panel.get("targets", ()):
            yield target["expr"]


def test_alerts_and_dashboard_name_metrics_that_there_are_with_labels_that_they_have() -> None:
    metrics = kept()
    named: set[str] = set()
    for expression in expressions():
        labels: set[str] = set()
        for name in re.findall(r"\bsluice_\w+", expression):
            whole = name if name in metrics else re.sub("_(bucket|sum|count)$", "", name)
            assert whole in metrics, f"there is no metric {name}: {expression}"
            assert whole == name or metrics[whole][0] == "histogram"
            labels |= {*metrics[whole][2], *OF_PROMETHEUS}
            named.add(whole)
        for group in re.findall(r"\bby \(([^)]*)\)", expression) + re.findall(r"\{([^}]*)\}", expression):
            used = {re.split(r"[=!]", one)[0].strip() for one in group.split(",")}
            assert not labels or used <= labels, f"{used - labels} in {expression}"
    assert len(named) > 25, "most of them are shown"


def test_each_alert_says_what_to_do_and_is_documented_and_tried() -> None:
    page = (CHECKOUT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    tried = ALERTS.with_name("alerts_test.yaml").read_text(encoding="utf-8")
    for alert in alerts():
        assert alert["labels"]["severity"] in {"critical", "warning", "info"}
        assert set(alert["annotations"]) == {"summary", "description"}
        assert f"| `{alert['alert']}` | {alert['labels']['severity']} |" in page
        assert f'alertname="{alert["alert"]}"' in tried


def test_the_panels_have_ids_of_their_own_a_unit_and_a_description() -> None:
    assert len({panel["id"] for panel in panels()}) == len(panels())
    for panel in panels():
        assert panel["type"] == "row" or (panel["description"] and panel["fieldConfig"]["defaults"]["unit"])


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool: apt-get install prometheus")
@pytest.mark.parametrize("words", [("check", "rules", "alerts.yaml"), ("test", "rules", "alerts_test.yaml")])
def test_prometheus_own_tool_accepts_the_alerts_and_their_tests(words: tuple[str, ...]) -> None:
    done = subprocess.run(["promtool", *words], cwd=ALERTS.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
