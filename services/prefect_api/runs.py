"""The states of flow runs in Prefect, read by id or since a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

from services.prefect_api.client import PAGE, PrefectApi

FINAL_TYPES: Final = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})
COMMIT_SECONDS: Final = 3.0
"""Prefect publishes a state before its transaction is committed: after this time it is, or never will be."""
COMMIT_PAUSES: Final = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Pauses, in seconds, before each read of a state that may not be committed yet."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StateChange:
    """A flow run entered a state. ``state_type`` is Prefect's (SCHEDULED, PAUSED, …), ``state_name`` its label."""

    run_id: str
    state_id: str | None
    """None for a run that was deleted, whose state type is ``DELETED``."""
    state_type: str
    state_name: str
    occurred: datetime
    message: str = ""
    deployment_id: str | None = None
    tags: tuple[str, ...] = ()


def is_retrying(state_name: str | None, retry_type: str | None) -> bool:
    """Whether a scheduled run is between two attempts in its own process, rather than to be started."""
    return state_name == "AwaitingRetry" and retry_type == "in_process"


async def committed(read: Callable[[], Awaitable[T | None]]) -> T | None:
    """Return the first result of ``read`` that is not None; None if there is none within about two seconds."""
    for pause in COMMIT_PAUSES:
        found = await read()
        if found is not None:
            return found
        await asyncio.sleep(pause)
    return await read()


async def states_of(api: PrefectApi, run_ids: Sequence[str]) -> list[StateChange]:
    """Return the present states of at most 200 runs; a run that Prefect does not have is missing."""
    rows = await api.request(
        "POST", "/flow_runs/filter", once=True, json={"flow_runs": {"id": {"any_": list(run_ids)}}, "limit": PAGE}
    )
    return [state_of(row) for row in rows]


@dataclass(frozen=True, slots=True)
class News:
    """News of some runs: those that are running or have ended, and the ids that Prefect does not have.

    A run in neither is waiting.
    """

    moved: Sequence[StateChange]
    gone: Sequence[str]


async def news_of(api: PrefectApi, run_ids: Sequence[str]) -> News:
    """Return news of at most 200 runs, by two requests that are cheap while most of the runs only wait.

    Returning 200 whole runs blocks a server, which is one process, for some tenths of a second.
    """
    ids = {"id": {"any_": list(run_ids)}}
    there = await api.request("POST", "/flow_runs/count", once=True, json={"flow_runs": ids})
    moving = {"type": {"any_": [*sorted(FINAL_TYPES), "RUNNING"]}}
    rows = await api.request(
        "POST", "/flow_runs/filter", once=True, json={"flow_runs": {**ids, "state": moving}, "limit": PAGE}
    )
    moved = [state_of(row) for row in rows]
    if there >= len(run_ids):
        return News(moved, ())
    silent = set(run_ids) - {now.run_id for now in moved}
    others = await states_of(api, sorted(silent)) if silent else []
    return News([*moved, *others], sorted(silent - {now.run_id for now in others}))


async def ended_since(api: PrefectApi, since: datetime, *, tag: str) -> list[StateChange]:
    """Return every run with ``tag`` that ended at or after ``since``, by Prefect's clock."""
    wanted = {
        "tags": {"all_": [tag]},
        "state": {"type": {"any_": sorted(FINAL_TYPES)}},
        "end_time": {"after_": since.isoformat()},
    }
    rows = await api.pages("/flow_runs/filter", {"flow_runs": wanted, "sort": "END_TIME_DESC"}, once=True)
    return [state_of(row) for row in rows]


async def retries_waiting(api: PrefectApi, *, tag: str) -> list[StateChange]:
    """Return at most 200 runs with ``tag`` that had ended and are about to start again."""
    wanted = {"tags": {"all_": [tag]}, "state": {"name": {"any_": ["AwaitingRetry"]}}}
    rows = await api.request("POST", "/flow_runs/filter", once=True, json={"flow_runs": wanted, "limit": PAGE})
    return [state_of(row) for row in rows]


def state_of(row: dict[str, Any]) -> StateChange:
    """Return the present state of a run from Prefect's API."""
    state = row["state"] or {"id": None, "type": "PENDING", "timestamp": row["created"]}
    return StateChange(
        run_id=row["id"],
        state_id=state["id"],
        state_type=state["type"],
        state_name=state.get("name") or "",
        occurred=datetime.fromisoformat(state["timestamp"]),
        message=state.get("message") or "",
        deployment_id=row["deployment_id"],
        tags=tuple(row["tags"]),
    )
