"""Calls about flow runs for the commands and the executor: read, logs, start, cancel."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from events.errors import NotFound, Refused
from events.short_ids import LEAST, the_one
from events.suggest import did_you_mean
from services.prefect_api.client import PAGE, PrefectApi
from services.prefect_api.deployments import names_of, read_by_name, without_work_pool
from services.prefect_api.runs import FINAL_TYPES, StateChange, is_retrying, state_of
from sluice.display import visible

MANY: Final = 10_000
SUSPENDED: Final = "Suspended"
CLAIMED: Final = "Claimed by "
"""Beginning of the message of the state Pending that an executor of Sluice sets."""
TYPES: Final = frozenset(
    {"SCHEDULED", "PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED", "CRASHED", "PAUSED", "CANCELLING"}
)
_DELETED_SECONDS: Final = 1.5
"""Time between the two reads after which a run counts as deleted; its process must end within 10 s of the deletion."""
_ANY: Final = str(UUID(int=0))
_LOOKED_AT: Final = 7
"""Number of runs with the same beginning of their id that are listed, and one more that shows that there are others."""
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
LEVELS: Final = {10: "debug", 20: "info", 30: "warning", 40: "error", 50: "critical"}


async def stopped(api: PrefectApi, run_ids: Sequence[str]) -> list[StateChange]:
    """Return those of the runs that are cancelled, suspended, ended, deleted, or scheduled for another process."""
    found: list[StateChange] = []
    for start in range(0, len(run_ids), PAGE):
        found += await _stopped(api, run_ids[start : start + PAGE])
    return found


async def _stopped(api: PrefectApi, run_ids: Sequence[str]) -> list[StateChange]:
    """Return those of the runs that need no process any more, deleted ones included."""
    ids = {"id": {"any_": list(run_ids)}}
    # Not whole runs of all of them: most are running or paused, and writing them out keeps the server from other work.
    there = await api.request("POST", "/flow_runs/count", json={"flow_runs": ids})
    without_process = {
        "operator": "or_",
        "type": {"any_": ["CANCELLING", "SCHEDULED", *sorted(FINAL_TYPES)]},
        "name": {"any_": [SUSPENDED]},
    }
    rows = await api.request("POST", "/flow_runs/filter", json={"flow_runs": {**ids, "state": without_process}})
    found = [
        state_of(row) for row in rows if not is_retrying(row["state_name"], row["empirical_policy"].get("retry_type"))
    ]
    if there < len(run_ids):
        found += await _deleted(api, sorted(set(run_ids) - {row["id"] for row in rows}))
    return found


async def _deleted(api: PrefectApi, run_ids: Sequence[str]) -> list[StateChange]:
    """Return the runs that Prefect does not have in two reads: a single "not found" does not prove a deletion."""
    missing = await _missing(api, run_ids)
    if missing:
        await asyncio.sleep(_DELETED_SECONDS)
        missing = await _missing(api, missing)
    return [StateChange(run_id, None, "DELETED", "Deleted", datetime.now(UTC)) for run_id in missing]


async def _missing(api: PrefectApi, run_ids: Sequence[str]) -> list[str]:
    missing = []
    for run_id in run_ids:
        try:
            await api.request("GET", f"/flow_runs/{run_id}")
        except NotFound:
            missing.append(run_id)
    return missing


async def in_process(api: PrefectApi, deployment_ids: Sequence[str]) -> list[str]:
    """Return the runs of these deployments that have a process by their state in Prefect."""
    found: list[str] = []
    types = ["PENDING", "RUNNING", "PAUSED", "CANCELLING"]
    for start in range(0, len(deployment_ids), PAGE):
        body = {
            "deployments": {"id": {"any_": list(deployment_ids[start : start + PAGE])}},
            "flow_runs": {"state": {"type": {"any_": types}, "name": {"not_any_": [SUSPENDED]}}},
            "sort": "EXPECTED_START_TIME_DESC",
        }
        rows = await api.pages("/flow_runs/filter", body, limit=MANY)
        found += [row["id"] for row in rows if not row["state"]["state_details"].get("pause_reschedule")]
    return found


async def was_claimed(api: PrefectApi, run_id: str) -> bool:
    """Whether an executor of Sluice, and no other runner, began to execute the run."""
    states = await api.request("GET", "/flow_run_states/", params={"flow_run_id": run_id})
    pending = [state for state in states if state["type"] == "PENDING"]
    last = max(pending, key=lambda state: datetime.fromisoformat(state["timestamp"]), default=None)
    return last is not None and (last.get("message") or "").startswith(CLAIMED)


async def end_cancelling(api: PrefectApi, run_ids: Sequence[str]) -> list[str]:
    """Set those of the runs to Cancelled that are Cancelling, because no process does it. Returns them."""
    body = {"flow_runs": {"id": {"any_": list(run_ids[:PAGE])}, "state": {"type": {"any_": ["CANCELLING"]}}}}
    rows = await api.request("POST", "/flow_runs/filter", json=body)
    state = {"type": "CANCELLED", "name": "Cancelled", "message": "No process executed the run any more."}
    for row in rows:
        await api.request("POST", f"/flow_runs/{row['id']}/set_state", json={"state": state, "force": True})
    return [row["id"] for row in rows]


async def read_run(api: PrefectApi, name_or_id: str) -> dict[str, Any]:
    """Return one run by its id, the beginning of it, or its name, with its parameters.

    Raises `NotFound`, and `Refused` (``ambiguous``) for a name or a beginning that several runs share.
    """
    run = await _find(api, name_or_id)
    (row,) = await rows_of(api, [run])
    return {**row, "parameters": run["parameters"], "run_count": run["run_count"], "work_pool": run["work_pool_name"]}


async def start_run(
    api: PrefectApi, deployment: str, parameters: Mapping[str, Any], *, name: str | None = None
) -> dict[str, Any]:
    """Create a run of ``flow/deployment`` (``flow`` alone is ``flow/default``), due now, and return it.

    Raises `NotFound`, with the name that is nearest, and `Refused` for parameters that the flow does not take.
    """
    wanted = deployment if "/" in deployment else f"{deployment}/default"
    try:
        found = await read_by_name(api, wanted)
    except NotFound:
        names = [one.name for one in await without_work_pool(api)]
        raise NotFound(f"there is no deployment {wanted!r}: {did_you_mean(wanted, names)}") from None
    body = {"parameters": dict(parameters), "name": name, "state": {"type": "SCHEDULED"}}
    body = {key: value for key, value in body.items() if value is not None}
    created = await api.request("POST", f"/deployments/{found.id}/create_flow_run", json=body)
    return await read_run(api, created["id"])


async def read_logs(api: PrefectApi, run_id: str, *, limit: int) -> list[dict[str, Any]]:
    """Return the last ``limit`` lines of the run's log, in order."""
    body = {"logs": {"flow_run_id": {"any_": [run_id]}}, "sort": "TIMESTAMP_DESC"}
    return [
        {
            "time": _time(line["timestamp"]),
            "level": LEVELS.get(line["level"], str(line["level"])),
            "logger": line["name"],
            "message": line["message"],
            "task_run_id": line.get("task_run_id"),
        }
        for line in reversed(await api.pages("/logs/filter", body, limit=limit))
    ]


async def try_again(api: PrefectApi, run_id: str, *, reason: str) -> None:
    """Start an ended run again, as Prefect's UI does; raises `Refused` if Prefect refuses it."""
    state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": visible(reason)}
    answer = await api.request("POST", f"/flow_runs/{run_id}/set_state", json={"state": state, "force": False})
    if answer["status"] != "ACCEPT":
        why = (answer.get("details") or {}).get("reason") or answer["status"]
        raise Refused("not-retried", f"Prefect does not let the run {run_id} start again: {why}")


async def refuse_start(api: PrefectApi, run_id: str, *, reason: str) -> None:
    """Set a run that is about to start to Failed, with the reason; one that runs or has ended stays as it is."""
    found = (await api.request("GET", f"/flow_runs/{run_id}"))["state"] or {}
    if found.get("type") in {"SCHEDULED", "PENDING"}:
        state = {"type": "FAILED", "name": "Failed", "message": visible(reason)}
        await api.request("POST", f"/flow_runs/{run_id}/set_state", json={"state": state, "force": False})


async def cancel_run(api: PrefectApi, run_id: str, *, reason: str) -> str:
    """Cancel the run; return the name of its state now.

    Raises `Refused` if Prefect does not let it be cancelled, as one that has ended already.
    """
    found = (await api.request("GET", f"/flow_runs/{run_id}"))["state"] or {}
    details = found.get("state_details") or {}
    # One without a process is cancelled at once, and Prefect would do it without the message.
    at_once = found.get("type") == "SCHEDULED" or (found.get("type") == "PAUSED" and details.get("pause_reschedule"))
    name = "Cancelled" if at_once else "Cancelling"
    state = {"type": name.upper(), "name": name, "message": visible(reason, lines=True)}
    answer = await api.request("POST", f"/flow_runs/{run_id}/set_state", json={"state": state, "force": False})
    now = answer["state"] or {}
    if answer["status"] == "ABORT" or now.get("type") not in {"CANCELLED", "CANCELLING"}:
        why = (answer.get("details") or {}).get("reason") or answer["status"]
        raise Refused("not-cancellable", f"the run cannot be cancelled: {why}")
    return str(now["name"])


async def _find(api: PrefectApi, name_or_id: str) -> dict[str, Any]:
    """Return the run with this id or name; raises `NotFound`, and `Refused` if a name has several."""
    try:
        run_id = str(UUID(name_or_id))
    except ValueError:
        return await _find_by_name(api, name_or_id)
    try:
        found: dict[str, Any] = await api.request("GET", f"/flow_runs/{run_id}")
    except NotFound as error:
        raise NotFound(f"there is no flow run with the id {run_id}") from error
    return found


async def _find_by_name(api: PrefectApi, name: str) -> dict[str, Any]:
    body = {"flow_runs": {"name": {"any_": [name]}}, "sort": "EXPECTED_START_TIME_DESC"}
    named = await api.pages("/flow_runs/filter", body, limit=6)
    if not named and len(name) >= LEAST and _UUID.fullmatch(name.lower() + _ANY[len(name) :]):
        named = await _that_begin(api, name.lower())
        if len(named) > 1:
            the_one([run["id"] for run in named], name, what="flow run")
    if not named:
        raise NotFound(f"there is no flow run with the name {name!r}, and none whose id begins so")
    if len(named) > 1:
        ids = ", ".join(run["id"] for run in named)
        raise Refused("ambiguous", f"several flow runs are named {name!r}: give the id, one of {ids}")
    return named[0]


async def _that_begin(api: PrefectApi, beginning: str) -> list[dict[str, Any]]:
    """Return the first runs whose ids begin so, by binary search: Prefect can order runs by id."""
    last = beginning + _ANY.replace("0", "f")[len(beginning) :]
    start, end = 0, int(await api.request("POST", "/flow_runs/count", json={}))
    while start < end:
        middle = (start + end) // 2
        found = await _by_id(api, offset=middle, limit=1)
        if found and found[0]["id"] > last:
            start = middle + 1
        else:
            end = middle
    return [run for run in await _by_id(api, offset=start, limit=_LOOKED_AT) if run["id"].startswith(beginning)]


async def _by_id(api: PrefectApi, *, offset: int, limit: int) -> list[dict[str, Any]]:
    body = {"sort": "ID_DESC", "offset": offset, "limit": limit}
    found: list[dict[str, Any]] = await api.request("POST", "/flow_runs/filter", json=body)
    return found


async def rows_of(api: PrefectApi, runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows of a listing for runs from Prefect's API."""
    flows = await names_of(api, "flows", (run["flow_id"] for run in runs))
    deployments = await names_of(api, "deployments", (run["deployment_id"] for run in runs))
    return [_row(run, flows, deployments) for run in runs]


def _row(run: Mapping[str, Any], flows: Mapping[str, str], deployments: Mapping[str, str]) -> dict[str, Any]:
    """Return a run of Prefect's API as a row of listings, with the names of its flow and deployment."""
    state = run.get("state") or {}
    flow = flows.get(run["flow_id"], "?")
    deployment = deployments.get(run.get("deployment_id") or "")
    tags = list(run.get("tags") or ())
    return {
        "id": run["id"],
        "name": run["name"],
        "flow": flow,
        "deployment": f"{flow}/{deployment}" if deployment else None,
        "state": state.get("name"),
        "state_type": state.get("type"),
        "message": state.get("message"),
        "created": _time(run.get("created")),
        "expected": _time(run.get("expected_start_time")),
        "started": _time(run.get("start_time")),
        "ended": _time(run.get("end_time")),
        "seconds": round(run.get("total_run_time") or 0.0, 3),
        "tags": tags,
        "event": _tagged(tags, "event:"),
        "event_source": _tagged(tags, "source:"),
    }


def _tagged(tags: Sequence[str], prefix: str) -> str | None:
    return next((tag.removeprefix(prefix) for tag in tags if tag.startswith(prefix)), None)


def _time(value: str | None) -> datetime | None:
    return datetime.fromisoformat(value) if value else None
