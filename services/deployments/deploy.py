"""`sluice deploy`: plans the changes to the project's deployments in Prefect, and carries them out."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from config.canary import FLOW_FILE, canary_deployment
from config.project import Project, project_root
from config.settings import CHECKOUT, Settings
from events.errors import ConfigError
from services.deployments.declared import Declarations, read_declarations
from services.deployments.options import OF_ONE_FLOW, options_of
from services.deployments.plan import PROJECT_LABEL, PlanStep, RegisteredDeployment, make_plan
from services.deployments.work_pools import look_at_work_pools
from services.prefect_api.client import PrefectApi
from services.prefect_api.deployments import every_body, register, remove
from services.store.connection import AsyncRedis
from services.store.runs.registered_files import RegisteredFile, forget, remember
from services.store.state.installation import check_project, claim_project, installation_id

_OPEN: Final = ("SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING")
_IN_STORE: Final = {"Scheduled", "Late"}
"""The states of runs that Prefect deletes with a schedule."""


@dataclass(frozen=True, slots=True)
class DeploymentPlan:
    """The steps to take, and the project's declarations."""

    steps: Sequence[PlanStep]
    declarations: Declarations
    poolless: Sequence[str] = ()
    """A sentence for each deployment that is not registered because Prefect does not have its work pool."""

    @property
    def gone(self) -> frozenset[str]:
        """Deployments whose flows the project no longer has."""
        return frozenset(step.deployment for step in self.steps if step.action in {"remove", "pause"})


def declare(settings: Settings, project: Project | None) -> Declarations:
    """Return the declarations of the flow files; without a readable project file, of those in the folder ``flows``.

    Raises `ConfigError` with the problems of all files. It forks, so no connection should be open yet.
    """
    root = project_root(settings.config)
    if project is None:
        return read_declarations(root, environment=str(settings.env))
    templates, faults = options_of(project.deployments)
    for name in sorted(OF_ONE_FLOW & {name for options in templates.values() for name in options.model_fields_set}):
        faults.append(((name,), "each flow has its own — write it in DEPLOYMENT of its file"))
    problems = [
        f"{project.document.where(('deployments', *key))}: deployments.{'.'.join(map(str, key))}: {what}"
        for key, what in faults
    ]
    try:
        declarations = read_declarations(
            root,
            environment=str(settings.env),
            flows=project.flows,
            where=f"{project.document.where(('flows',))}: flows",
            project=project.name,
            templates=templates,
        )
    except ConfigError as error:
        raise ConfigError(*problems, *error.problems) from None
    if problems:
        raise ConfigError(*problems)
    if settings.canary_in_force is None:
        return declarations
    own = read_declarations(CHECKOUT, environment=str(settings.env), flows=[FLOW_FILE], project=project.name)
    name = canary_deployment(project.name)
    canaries = (replace(one, body={**one.body, "name": name}) for one in own.deployments)
    return replace(declarations, deployments=(*declarations.deployments, *canaries))


async def plan_deployments(prefect: PrefectApi, redis: AsyncRedis, declarations: Declarations) -> DeploymentPlan:
    """Ask Prefect what there is; changes nothing.

    Raises `TransientError`, and `ConfigError` where this Redis holds another project, Prefect has deployments of these
    names that belong to another one, or a work pool does not take the job variables of a deployment.
    """
    await check_project(redis, declarations.project, declarations.root)
    pools = await look_at_work_pools(prefect, declarations)
    if pools.faults:
        raise ConfigError(*pools.faults)
    project = await installation_id(redis)
    registered = await _registered(prefect, project, {one.name for one in declarations.deployments})
    steps = make_plan(declarations, registered, project=project, host=socket.gethostname(), poolless=pools.missing)
    return DeploymentPlan(steps, declarations, tuple(pools.missing.values()))


async def carry_out(prefect: PrefectApi, redis: AsyncRedis, plan: DeploymentPlan) -> None:
    """Do what the plan says. Each step can be repeated, so the next deploy completes an interrupted one.

    Raises `TransientError`, and `Refused` for a deployment that Prefect refuses.
    """
    await claim_project(redis, plan.declarations.project, plan.declarations.root)
    bodies = {one.name: one.flow for one in plan.declarations.deployments}
    for step in plan.steps:
        match step.action:
            case "create" | "change" | "unchanged":
                body = step.body or {}
                deployment_id = str(step.deployment_id)
                if step.action != "unchanged":
                    deployment_id = await register(prefect, flow=bodies[step.deployment], body=body)
                if body["work_pool_name"]:
                    await forget(redis, deployment_id)  # no executor runs it
                else:
                    file = RegisteredFile(path=str(body["path"]), entrypoint=str(body["entrypoint"]))
                    await remember(redis, deployment_id, file)
            case "remove":
                await remove(prefect, str(step.deployment_id))
                await forget(redis, str(step.deployment_id))
            case "pause":
                await prefect.request("POST", f"/deployments/{step.deployment_id}/pause_deployment")
            case "leave":
                pass


async def _registered(prefect: PrefectApi, project: str, wanted: set[str]) -> list[RegisteredDeployment]:
    found = []
    for name, body in (await every_body(prefect)).items():
        ours = (body.get("labels") or {}).get(PROJECT_LABEL) == project
        open_runs = await _open_runs(prefect, body["id"]) if ours and name not in wanted else {}
        found.append(RegisteredDeployment(name, body, open_runs))
    return found


async def _open_runs(prefect: PrefectApi, deployment_id: str) -> dict[str, int]:
    """Return the number of active runs by the name of their state, without those that only its schedule has created."""
    asked = {
        "deployments": {"id": {"any_": [deployment_id]}},
        "flow_runs": {"state": {"type": {"any_": list(_OPEN)}}},
        "sort": "ID_DESC",
    }
    return dict(
        Counter(
            run["state_name"]
            for run in await prefect.pages("/flow_runs/filter", asked)
            if not (run["auto_scheduled"] and run["state_name"] in _IN_STORE and not run["run_count"])
        )
    )
