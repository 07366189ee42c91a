"""Deployments: reading them, their registration, and their due runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from urllib.parse import quote

from events.errors import NotFound
from services.prefect_api.client import PAGE, PrefectApi
from services.prefect_api.runs import is_retrying


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployment."""

    id: str
    name: str
    """``flow/deployment``."""
    flow_id: str
    path: str | None
    entrypoint: str | None
    remote: bool
    """Whether its code is fetched (pull steps, a storage block) instead of read from its path."""
    work_pool: str | None
    tags: tuple[str, ...]
    job_variables: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class DueRun:
    """A scheduled run and its start time."""

    run_id: str
    state_id: str
    deployment_id: str
    scheduled: datetime


async def every_body(api: PrefectApi) -> dict[str, dict[str, Any]]:
    """Return every deployment as in Prefect's API, by ``flow/deployment``, without those whose flow was deleted."""
    bodies = await api.pages("/deployments/filter", {"sort": "NAME_ASC"})
    flows = await names_of(api, "flows", (body["flow_id"] for body in bodies))
    return {f"{flows[body['flow_id']]}/{body['name']}": body for body in bodies if body["flow_id"] in flows}


async def without_work_pool(api: PrefectApi) -> list[Deployment]:
    """Return every deployment without a work pool, ordered by name. Raises `TransientError`."""
    found = await every_body(api)
    return [_deployment(name, body) for name, body in found.items() if not body.get("work_pool_name")]


async def read(api: PrefectApi, deployment_id: str) -> Deployment:
    """Return one deployment. Raises `NotFound`."""
    body = await api.request("GET", f"/deployments/{deployment_id}")
    flow = await api.request("GET", f"/flows/{body['flow_id']}")
    return _deployment(f"{flow['name']}/{body['name']}", body)


async def read_by_name(api: PrefectApi, name: str, *, once: bool = False) -> Deployment:
    """Return the deployment ``flow/deployment``; ``once`` as in `PrefectApi.request`. Raises `NotFound`."""
    flow, _, own = name.partition("/")
    path = f"/deployments/name/{quote(flow, safe='')}/{quote(own, safe='')}"
    return _deployment(name, await api.request("GET", path, once=once))


async def due(api: PrefectApi, deployment_ids: Sequence[str], *, before: datetime) -> list[DueRun]:
    """Return the first 200 scheduled runs of these deployments that start before then, soonest first.

    By this call Prefect knows that the deployments are served, and shows them as ready.
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
    """Create or update a deployment of ``flow`` from the fields of Prefect's API; return its id.

    Raises `Refused` if Prefect refuses it.
    """
    flow_id = (await api.request("POST", "/flows/", json={"name": flow}))["id"]
    created = await api.request("POST", "/deployments/", json={**body, "flow_id": flow_id})
    if created.get("work_pool_name") and not body.get("work_pool_name"):
        # Prefect leaves a deployment in its work pool when it is registered again without one.
        await api.request("PATCH", f"/deployments/{created['id']}", json={"work_pool_name": None})
    return str(created["id"])


async def work_pools(api: PrefectApi) -> dict[str, dict[str, Any]]:
    """Return the work pools by name, as in Prefect's API. Raises `TransientError`."""
    return {pool["name"]: pool for pool in await api.pages("/work_pools/filter", {})}


async def remove(api: PrefectApi, deployment_id: str) -> None:
    """Delete a deployment, if it still exists."""
    try:
        await api.request("DELETE", f"/deployments/{deployment_id}")
    except NotFound:
        return


async def names_of(api: PrefectApi, kind: Literal["flows", "deployments"], ids: Iterable[str | None]) -> dict[str, str]:
    """Return the names of flows or deployments by their ids; deleted ones are left out."""
    wanted = sorted({id_ for id_ in ids if id_})
    names: dict[str, str] = {}
    for start in range(0, len(wanted), PAGE):
        body = {kind: {"id": {"any_": wanted[start : start + PAGE]}}, "limit": PAGE}
        names.update({found["id"]: found["name"] for found in await api.request("POST", f"/{kind}/filter", json=body)})
    return names


def _deployment(name: str, body: Mapping[str, Any]) -> Deployment:
    return Deployment(
        id=body["id"],
        name=name,
        flow_id=body["flow_id"],
        path=body.get("path"),
        entrypoint=body.get("entrypoint"),
        remote=bool(body.get("pull_steps") or body.get("storage_document_id")),
        work_pool=body.get("work_pool_name"),
        tags=tuple(body.get("tags") or ()),
        job_variables=body.get("job_variables") or {},
    )
