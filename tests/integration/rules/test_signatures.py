"""The rules held against the deployments of a real Prefect server."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from config.project import Project, parse_project
from services.deployments.signatures import check_with_prefect
from services.prefect_api.client import connect
from services.prefect_api.deployments import register

SCHEMA = {
    "type": "object",
    "properties": {"path": {"type": "string"}, "size": {"type": "integer"}},
    "required": ["path", "size"],
}


def project(run: str, parameters: str) -> Project:
    return parse_project(
        f"rules: [{{name: r, on: '*', run: {run}, parameters: {parameters}}}]", Path("f"), home=Path("/")
    )


@pytest.fixture
async def deployment(prefect_url: str) -> str:
    flow = f"flow-{uuid.uuid4().hex[:8]}"
    body: dict[str, Any] = {"name": "default", "parameter_openapi_schema": SCHEMA, "parameters": {"size": 3}}
    async with connect() as api:
        await register(api, flow=flow, body=body)
    return f"{flow}/default"


async def test_parameters_that_the_flow_takes_are_fine(deployment: str) -> None:
    async with connect() as api:
        findings = await check_with_prefect(project(deployment, "{path: '{{ event.id }}'}"), api)
    assert (findings.errors, findings.warnings) == ((), ())


async def test_parameters_that_do_not_fit_are_errors(deployment: str) -> None:
    async with connect() as api:
        findings = await check_with_prefect(project(deployment, "{pth: x}"), api)
    assert [error.partition(deployment)[2] for error in findings.errors] == [
        " takes no parameter 'pth' — did you mean `path`?",
        " needs the parameter 'path' — add it here, or give it a default in the flow",
    ]


async def test_a_deployment_that_is_not_there_is_a_warning(deployment: str) -> None:
    async with connect() as api:
        findings = await check_with_prefect(project(deployment + "x", "{path: x}"), api)
    assert findings.errors == ()
    assert f"did you mean `{deployment}`?" in findings.warnings[0]
