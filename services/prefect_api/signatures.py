"""What the deployments of a Prefect server take as parameters."""

from __future__ import annotations

from typing import Any

from config.parameters import Findings, Signature, check_parameters
from config.project import Project
from services.prefect_api.client import PrefectApi
from services.prefect_api.deployments import PAGE, flow_names


async def read_signatures(api: PrefectApi) -> dict[str, Signature]:
    """The signature of every deployment, by ``flow/deployment``. Raises `TransientError`."""
    bodies: list[dict[str, Any]] = []
    while True:
        body = {"sort": "NAME_ASC", "limit": PAGE, "offset": len(bodies)}
        page = await api.request("POST", "/deployments/filter", json=body)
        bodies += page
        if len(page) < PAGE:
            break
    flows = await flow_names(api, sorted({body["flow_id"] for body in bodies}))
    return {
        f"{flows[body['flow_id']]}/{body['name']}": Signature(
            schema=body.get("parameter_openapi_schema") or {"additionalProperties": True},
            defaults=frozenset(body.get("parameters") or {}),
        )
        for body in bodies
        if body["flow_id"] in flows
    }


async def check_with_prefect(project: Project, api: PrefectApi) -> Findings:
    """Hold the rules against the deployments that Prefect has. Raises `TransientError`."""
    return check_parameters(project, await read_signatures(api))
