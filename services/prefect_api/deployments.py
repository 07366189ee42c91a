"""Deployments as the executor needs them, their registration, and the runs that are due."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote

from events.errors import NotFound
from services.prefect_api.client import PrefectApi
from services.prefect_api.runs import PAGE, is_retrying


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment, as far as it concerns where its runs are executed."""

    id: str
    name: str
    """``flow/deployment``."""
    path: str | None
    entrypoint: str | None
    remote: bool
    """Its code is fetched (pull steps, a storage block) rather than read where it lies."""
    work_pool: str | None
    tags: tuple[str, ...]
    job_variables: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DueRun:
    """A scheduled run, and when it is to start."""

    run_id: str
    state_id: str
    deployment_id: str
    scheduled: datetime


async def all_bodies(api: PrefectApi) -> list[dict[str, Any]]:
    """Every deployment as Prefect's API has it, ordered by name. Raises `TransientError`."""
    found: list[dict[str, Any]] = []
    while True:
        body = {"sort": "NAME_ASC", "limit": PAGE, "offset": len(found)}
        page = await api.request("POST", "/deployments/filter", json=body)
        found.extend(page)
        if len(page) < PAGE:
            return found


async def without_work_pool(api: PrefectApi) -> list[Deployment]:
    """Every deployment that names no work pool, ordered by name. Raises `TransientError`."""
    ours = [body for body in await all_bodies(api) if not body.get("work_pool_name")]
    names = await flow_names(api, sorted({body["flow_id"] for body in ours}))
    return [_deployment(body, names[body["flow_id"]]) for body in ours if body["flow_id"] in names]


async def read(api: PrefectApi, deployment_id: str) -> Deployment:
    """One deployment. Raises `NotFound`."""
    body = await api.request("GET", f"/deployments/{deployment_id}")
    flow = await api.request("GET", f"/flows/{body['flow_id']}")
    return _deployment(body, flow["name"])


async def read_by_name(api: PrefectApi, name: str) -> Deployment:
    """The deployment ``flow/deployment``. Raises `NotFound`."""
    flow, _, own = name.partition("/")
    body = await api.request("GET", f"/deployments/name/{quote(flow, safe='')}/{quote(own, safe='')}")
    return _deployment(body, flow)


async def due(api: PrefectApi, deployment_ids: Sequence[str], *, before: datetime) -> list[DueRun]:
    """The first 200 scheduled runs of these deployments that are to start before then, soonest first.

    Prefect takes the question as the sign that the deployments are served, and shows them as ready.
    """
    found: list[dict[str, Any]] = []
    for start in range(0, len(deployment_ids), PAGE):
        body = {"deployment_ids": list(deployment_ids[start : start + PAGE]), "scheduled_before": before.isoformat()}
        found.extend(await api.request("POST", "/deployments/get_scheduled_flow_runs", json=body))
    return [
        DueRun(
            run_id=run["id"],
            state_id=run["state_id"],
            deployment_id=run["deployment_id"],
            scheduled=datetime.fromisoformat(run["next_scheduled_start_time"]),
        )
        for run in found
        if not is_retrying(run["state_name"], run["empirical_policy"].get("retry_type"))
    ]


async def register(api: PrefectApi, *, flow: str, body: Mapping[str, Any]) -> str:
    """Create or update a deployment of ``flow`` from the fields of Prefect's API; answers its id.

    Raises `RejectedEvent` when Prefect does not take it.
    """
    flow_id = (await api.request("POST", "/flows/", json={"name": flow}))["id"]
    created = await api.request("POST", "/deployments/", json={**body, "flow_id": flow_id})
    if created.get("work_pool_name") and not body.get("work_pool_name"):
        # Prefect leaves a deployment in its work pool when it is registered again without one.
        await api.request("PATCH", f"/deployments/{created['id']}", json={"work_pool_name": None})
    return str(created["id"])


async def work_pools(api: PrefectApi) -> dict[str, dict[str, Any]]:
    """The work pools by their names, as Prefect's API has them. Raises `TransientError`."""
    found: dict[str, dict[str, Any]] = {}
    while True:
        page = await api.request("POST", "/work_pools/filter", json={"limit": PAGE, "offset": len(found)})
        found.update({pool["name"]: pool for pool in page})
        if len(page) < PAGE:
            return found


async def remove(api: PrefectApi, deployment_id: str) -> None:
    """Delete a deployment; one that is gone already is fine."""
    try:
        await api.request("DELETE", f"/deployments/{deployment_id}")
    except NotFound:
        return


async def flow_names(api: PrefectApi, ids: Sequence[str]) -> dict[str, str]:
    """The names of flows by their ids; a flow that is gone is left out."""
    names: dict[str, str] = {}
    for start in range(0, len(ids), PAGE):
        body = {"flows": {"id": {"any_": list(ids[start : start + PAGE])}}, "limit": PAGE}
        names.update({flow["id"]: flow["name"] for flow in await api.request("POST", "/flows/filter", json=body)})
    return names


def _deployment(body: Mapping[str, Any], flow: str) -> Deployment:
    return Deployment(
        id=body["id"],
        name=f"{flow}/{body['name']}",
        path=body.get("path"),
        entrypoint=body.get("entrypoint"),
        remote=bool(body.get("pull_steps") or body.get("storage_document_id")),
        work_pool=body.get("work_pool_name"),
        tags=tuple(body.get("tags") or ()),
        job_variables=body.get("job_variables") or {},
    )
