"""What Prefect says of flow runs: their present states, by id or since a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from services.prefect_api.client import PrefectApi

FINAL_TYPES: Final = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})
PAGE: Final = 200
"""Prefect's own limit on one answer."""


@dataclass(frozen=True, slots=True)
class RunNow:
    """A flow run's present state."""

    run_id: str
    state_type: str
    state_name: str
    message: str
    at: datetime


async def states_of(api: PrefectApi, run_ids: Sequence[str]) -> list[RunNow]:
    """The present states of at most 200 runs; a run that Prefect does not know is missing."""
    rows = await api.request(
        "POST", "/flow_runs/filter", once=True, json={"flow_runs": {"id": {"any_": list(run_ids)}}, "limit": PAGE}
    )
    return [_run_now(row) for row in rows]


@dataclass(frozen=True, slots=True)
class News:
    """What is to be known of some runs: those that are running or over, and the ids that Prefect does not have.

    A run in neither waits for something.
    """

    moved: Sequence[RunNow]
    gone: Sequence[str]


async def news_of(api: PrefectApi, run_ids: Sequence[str]) -> News:
    """News of at most 200 runs, by two questions that cost the server little while most of them only wait.

    Writing out 200 whole runs keeps a server, which is one process, from everything else for some tenths of a second.
    """
    ids = {"id": {"any_": list(run_ids)}}
    there = await api.request("POST", "/flow_runs/count", once=True, json={"flow_runs": ids})
    moving = {"type": {"any_": [*sorted(FINAL_TYPES), "RUNNING"]}}
    rows = await api.request(
        "POST", "/flow_runs/filter", once=True, json={"flow_runs": {**ids, "state": moving}, "limit": PAGE}
    )
    moved = [_run_now(row) for row in rows]
    if there >= len(run_ids):
        return News(moved, ())
    silent = set(run_ids) - {now.run_id for now in moved}
    others = await states_of(api, sorted(silent)) if silent else []
    return News([*moved, *others], sorted(silent - {now.run_id for now in others}))


async def ended_since(api: PrefectApi, since: datetime, *, tag: str) -> list[RunNow]:
    """Every run with ``tag`` that ended at or after ``since``, by Prefect's clock."""
    found: list[RunNow] = []
    while True:
        body = {
            "flow_runs": {
                "tags": {"all_": [tag]},
                "state": {"type": {"any_": sorted(FINAL_TYPES)}},
                "end_time": {"after_": since.isoformat()},
            },
            "sort": "END_TIME_DESC",
            "limit": PAGE,
            "offset": len(found),
        }
        rows = await api.request("POST", "/flow_runs/filter", once=True, json=body)
        found += [_run_now(row) for row in rows]
        if len(rows) < PAGE:
            return found


def _run_now(row: dict[str, Any]) -> RunNow:
    state = row["state"] or {"type": "PENDING", "timestamp": row["created"]}
    return RunNow(
        run_id=row["id"],
        state_type=state["type"],
        state_name=state.get("name") or "",
        message=state.get("message") or "",
        at=datetime.fromisoformat(state["timestamp"]),
    )
