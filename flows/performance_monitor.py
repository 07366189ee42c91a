"""How long tasks take and how often they succeed: from Prefect's own records, as an artifact and as metrics.

Needs nothing. ``GET /metrics`` of Sluice serves what is in ``metrics/`` of ``SLUICE_HOME``.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import mean, quantiles
from typing import Any, Final

from prefect import State, flow, get_client, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from sluice import run_name, visible

DEPLOYMENT: Final = {"interval_seconds": 900, "environments": {"development": {"interval_seconds": None}}}
PAGE: Final = 200
MOST: Final = 20_000


@task(cache_policy=NO_CACHE)
def ended_task_runs(since: datetime) -> list[dict[str, Any]]:
    """The task runs that began since then and have ended, at most `MOST` of them, the newest first."""
    ended = {"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}}, "start_time": {"after_": str(since)}}
    found: list[dict[str, Any]] = []
    with get_client(sync_client=True) as client:
        while len(found) < MOST:
            body = {"task_runs": ended, "sort": "END_TIME_DESC", "limit": PAGE, "offset": len(found)}
            page = client.request("POST", "/task_runs/filter", json=body).json()
            found += page
            if len(page) < PAGE:
                break
    return found


@task(cache_policy=NO_CACHE)
def summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each task: runs, seconds on average and at the 95th percentile, and the share that succeeded."""
    tasks: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        tasks[re.sub(r"-[0-9a-f]{8,}$", "", run["task_key"])].append(run)
    rows = []
    for name, members in sorted(tasks.items()):
        seconds = [float(run["total_run_time"]) for run in members]
        done = sum(run["state_type"] == "COMPLETED" for run in members)
        rows.append(
            {
                "task": visible(name, 200),
                "runs": len(members),
                "mean seconds": round(mean(seconds), 3),
                "p95 seconds": round(
                    quantiles(seconds, n=20, method="inclusive")[-1] if len(seconds) > 1 else seconds[0], 3
                ),
                "success rate": round(done / len(members), 4),
            }
        )
    return rows


@task(cache_policy=NO_CACHE)
def write_metrics(rows: list[dict[str, Any]], folder: Path) -> Path:
    """Put the rows into a file in Prometheus' text format, which appears when it is complete."""
    lines = []
    for column in ("runs", "mean seconds", "p95 seconds", "success rate"):
        metric = f"flow_task_{column.replace(' ', '_')}"
        lines += [f"# HELP {metric} Of each task: {column}", f"# TYPE {metric} gauge"]
        lines += [f"{metric}{{task={_label(row['task'])}}} {row[column]}" for row in rows]
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "performance.prom"
    draft = target.with_suffix(f".{os.getpid()}.part")
    draft.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return draft.replace(target)


def _label(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@flow(name="performance-monitor", flow_run_name=run_name("tasks of {hours} h"))
def performance_monitor(hours: float = 24.0) -> State[list[dict[str, Any]]]:
    """Publish count, mean, 95th percentile and success rate of every task that ran in the last ``hours``.

    Needs nothing. Every quarter of an hour outside development.
    """
    rows = summary(ended_task_runs(datetime.now(UTC) - timedelta(hours=hours)))
    create_table_artifact(rows, key="performance", description=f"Tasks of the last {hours:g} hours")
    write_metrics(rows, Path(os.environ.get("SLUICE_HOME", ".sluice")).resolve() / "metrics")
    return Completed(message=f"{sum(row['runs'] for row in rows)} runs of {len(rows)} tasks", data=rows)


if __name__ == "__main__":
    performance_monitor()
