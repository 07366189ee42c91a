"""The page of metrics: one for the whole installation, complete also when parts of it are dead."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from config.settings import ROLES
from events.dead_letter import DeadLetter
from services.common.metrics import Gains, Series, decision_seconds, matched
from services.operations.backlog import Backlog, BacklogPlace
from services.operations.gauges import GAUGES
from services.operations.metric_totals import MetricTotals
from services.operations.metrics_page import Kept, MetricsPage, ProjectNames, render
from services.operations.readiness import judge
from services.store.connection import AsyncRedis
from services.store.dead_letters import DeadLetters
from services.store.keys import DEAD
from tests.unit.services.operations.test_readiness import all_but, report

NAMES = ProjectNames(["pay", "ship"], ["inbox"])


def page(reports: list[dict[str, Any]], kept: Kept | None = None, flows: Path | None = None) -> list[str]:
    return render(judge(reports, expected=ROLES), kept or Kept(), NAMES, flows).decode().splitlines()


def with_parts(role: str, instance: str = "host-1", **parts: dict[str, Any]) -> dict[str, Any]:
    named = {name.replace("__", ":"): part for name, part in parts.items()}
    return report(role, instance) | {"parts": named}


def test_a_dead_role_is_zero_and_not_absent() -> None:
    lines = page([*all_but("api", "executor"), report("executor", silent=20)])
    assert "sluice_ready 0.0" in lines
    assert 'sluice_role_ready{role="router"} 1.0' in lines
    assert 'sluice_role_ready{role="executor"} 0.0' in lines
    assert 'sluice_role_instances{role="api"} 0.0' in lines
    assert "sluice_ready 1.0" in page(all_but())
    few = render(judge(all_but("api"), expected=("router",)), Kept(), NAMES).decode()
    assert 'role="api"' not in few, "a role that nobody expects raises no alert"


def test_what_the_project_file_names_is_there_before_anything_happened() -> None:
    lines = page([])
    assert 'sluice_watch_up{watch="inbox"} 0.0' in lines
    assert 'sluice_rule_held_runs{rule="pay"} 0.0' in lines
    assert 'sluice_rule_matches_total{rule="ship"} 0.0' in lines
    kept = Kept([(Series("sluice_rule_matches_total", {"rule": "ship"}), 3.0)])
    assert sorted(line for line in page([], kept) if line.startswith("sluice_rule_matches_total")) == [
        'sluice_rule_matches_total{rule="pay"} 0.0',
        'sluice_rule_matches_total{rule="ship"} 3.0',
    ]


def test_what_instances_share_counts_once_and_what_each_has_adds_up() -> None:
    watch = {"path": "/in", "done": 5, "failed": 1}
    slots = {"name": "default", "slots": 4, "slots_ready": 4, "running": 2, "paused": 1}
    lines = page(
        [
            with_parts("listeners", "a-1", files__inbox=watch, redis__x={"buffered_bytes": 10}),
            with_parts("listeners", "b-1", files__inbox=watch | {"degraded": "gone"}, redis__x={"buffered_bytes": 5}),
            with_parts("executor", "a-1", executor=slots),
            with_parts("executor", "b-1", executor=slots),
            with_parts("router", dispatcher={"held": [{"rule": "pay", "waiting": 7}]}, router={"parked": {"ship": 2}}),
        ]
    )
    assert 'sluice_watch_up{watch="inbox"} 1.0' in lines
    assert 'sluice_watch_files{state="done",watch="inbox"} 5.0' in lines
    assert 'sluice_pubsub_buffered_bytes{listener="redis:x"} 15.0' in lines
    assert 'sluice_executor_slots{executor="default"} 8.0' in lines
    assert 'sluice_executor_runs_paused{executor="default"} 2.0' in lines
    assert 'sluice_rule_held_runs{rule="pay"} 7.0' in lines
    assert 'sluice_rule_parked_events{rule="ship"} 2.0' in lines


def test_a_report_with_a_number_that_no_float_holds_costs_that_number_alone() -> None:
    watch = {"path": "/in", "done": 10**400, "failed": 2, "in_flight": "many"}
    lines = page([with_parts("listeners", files__inbox=watch), with_parts("router", dispatcher={"held": [7, {}]})])
    assert 'sluice_watch_files{state="failed",watch="inbox"} 2.0' in lines
    assert not [line for line in lines if 'state="done"' in line or 'state="in_flight"' in line]


def test_what_flows_wrote_is_among_the_metrics_and_nothing_that_passes_for_sluices_own(tmp_path: Path) -> None:
    (tmp_path / "a.prom").write_text('# TYPE flow_task_runs gauge\nflow_task_runs{task="store"} 7\nsluice_ready 0\n')
    (tmp_path / "b.prom").write_text("flow_task_runs not a number\n")
    (tmp_path / "c.part").write_text("flow_unfinished 1\n")
    lines = page(all_but(), flows=tmp_path)
    assert 'flow_task_runs{task="store"} 7.0' in lines
    assert [line for line in lines if line.startswith("sluice_ready ")] == ["sluice_ready 1.0"]
    assert "sluice_flow_metrics_unreadable 1.0" in lines
    assert not [line for line in lines if "flow_unfinished" in line]
    assert "sluice_flow_metrics_unreadable 0.0" in page(all_but(), flows=tmp_path / "none")


async def test_the_page_holds_what_redis_keeps_and_is_clean(redis: AsyncRedis, tmp_path: Path) -> None:
    matched.labels("pay").inc()
    decision_seconds.labels("pay").observe(0.2)
    await MetricTotals(redis).add(Gains().now())
    letters = DeadLetters(redis)
    for number, code in enumerate(("not-json", "not-json", "expired")):
        await letters.add(letter(str(number), code))
    await redis.zadd(DEAD, {"lost": 1})
    served = MetricsPage(redis=redis, names=lambda: NAMES, flows=tmp_path)
    text = (await served.text(judge(all_but(), expected=ROLES))).decode()
    assert 'sluice_dead_letters{code="not-json"} 2.0' in text
    assert 'sluice_dead_letters{code="other"} 1.0' in text
    assert 'sluice_event_decision_seconds_bucket{le="0.25",rule="pay"}' in text
    for name in GAUGES:
        assert f"# HELP {name} " in text


def test_prometheus_own_check_finds_nothing_to_say(tmp_path: Path) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("no promtool: apt-get install prometheus")
    matched.labels("pay").inc()
    decision_seconds.labels("pay").observe(0.2)
    totals = [(Series.parse(field), gain) for field, gain in Gains().now().items()]
    text = render(judge(all_but(), expected=ROLES), Kept(totals), NAMES, tmp_path).decode()
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, text=True, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def letter(name: str, code: str) -> DeadLetter:
    now = "2026-01-01T00:00:00Z"
    fields = {"kind": "message", "reason": "-", "source": "s", "raw": "eA==", "first_failed": now, "last_failed": now}
    return DeadLetter.model_validate({"id": name, "code": code, **fields})


def test_what_waits_is_told_by_rule_and_zero_where_nothing_does() -> None:
    queues = {"pay:f/a": BacklogPlace(3, 5.0), "pay:f/b": BacklogPlace(1, 9.0)}
    readiness = judge(all_but(), expected=ROLES, backlog=Backlog(journal=BacklogPlace(2, 4.0), dispatch=queues))
    lines = render(readiness, Kept(), NAMES).decode().splitlines()
    assert {
        'sluice_backlog{place="journal"} 2.0',
        'sluice_backlog_oldest_seconds{place="dispatch_queues"} 9.0',
        'sluice_rule_queued_runs{rule="pay"} 4.0',
        'sluice_rule_queued_oldest_seconds{rule="pay"} 9.0',
        'sluice_rule_queued_runs{rule="ship"} 0.0',
    } <= set(lines)
