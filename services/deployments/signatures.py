"""The parameters of the deployments of a Prefect server."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from config.parameters import ParameterFindings, Signature, check_parameters
from config.project import Project
from services.prefect_api.client import PrefectApi
from services.prefect_api.deployments import every_body


async def read_signatures(api: PrefectApi) -> dict[str, Signature]:
    """The signature of every deployment, by ``flow/deployment``. Raises `TransientError`."""
    return {
        name: Signature(
            schema=body.get("parameter_openapi_schema") or {"additionalProperties": True},
            defaults=frozenset(body.get("parameters") or {}),
        )
        for name, body in (await every_body(api)).items()
    }


async def check_with_prefect(
    project: Project, api: PrefectApi, *, declared: Mapping[str, Signature] | None = None, gone: Collection[str] = ()
) -> ParameterFindings:
    """Hold the rules against the deployments that Prefect has, or will have once ``declared`` is registered.

    What is ``gone`` counts as not there. Raises `TransientError`.
    """
    there = {name: signature for name, signature in (await read_signatures(api)).items() if name not in gone}
    return check_parameters(project, {**there, **(declared or {})})
