"""The checks of a project before it runs: its file, its tests, its flows, the deployments that it names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from config.parameters import ParameterFindings, check_parameters
from config.project import Project, load_project, project_root, run_rule_tests
from config.settings import Settings
from events.errors import ConfigError, SluiceError
from services.deployments.declared import Declarations
from services.deployments.deploy import declare
from services.deployments.isolation import in_project
from services.deployments.signatures import check_with_prefect
from services.deployments.work_pools import look_at_work_pools
from services.executor.process.flow_loading import describe_failure
from services.listeners.http.endpoint_process import load_application
from services.prefect_api.client import PrefectApi

AskPrefect = Callable[[Project, Declarations], Awaitable[ParameterFindings]]


@dataclass(frozen=True, slots=True)
class Checked:
    """A project without errors, and remarks about it."""

    project: Project
    tests: int
    declarations: Declarations
    warnings: Sequence[str] = ()
    prefect_problem: str | None = None
    """Why Prefect could not be asked; None where it was, or was not to be."""


async def hold_against_prefect(project: Project, api: PrefectApi, declarations: Declarations) -> ParameterFindings:
    """What does not fit the deployments and work pools that Prefect has. Raises `TransientError`."""
    findings = await check_with_prefect(project, api, declared=declarations.signatures)
    pools = await look_at_work_pools(api, declarations)
    return ParameterFindings((*findings.errors, *pools.problems), findings.warnings)


def endpoint_problems(project: Project, root: Path) -> list[str]:
    """Why the project's own HTTP routes cannot be imported from ``root``, if they cannot."""
    if project.endpoints is None:
        return []
    (found,) = in_project(root, [partial(_import_endpoints, project.endpoints)])
    why = "importing it ended the process, or took too long" if found is None else found["problem"]
    return [f"{project.document.where(('endpoints',))}: endpoints: {project.endpoints}: {why}"] if why else []


def _import_endpoints(reference: str) -> dict[str, str | None]:
    try:
        load_application(reference)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the project's code raises
        return {"problem": describe_failure(error)}
    return {"problem": None}


async def check_project(
    settings: Settings, *, ask_prefect: AskPrefect | None = None, without_libraries: bool = False
) -> Checked:
    """Raises `ConfigError` with everything that is wrong in the project's file and in its flows.

    ``ask_prefect`` holds the rules against the deployments that there are. A Prefect that cannot be asked is a warning;
    the rules are then held against the deployments that the project's own flows declare. A flow file whose library is
    missing is an error, or a warning with ``without_libraries``.
    """
    errors: list[str] = []
    project: Project | None = None
    declarations: Declarations | None = None
    try:
        project = load_project(settings.config, home=settings.home)
    except ConfigError as error:
        errors += error.problems
    else:
        errors += run_rule_tests(project)
    try:
        declarations = declare(settings, project)
    except ConfigError as error:
        errors += error.problems
    if project is not None:
        errors += endpoint_problems(project, project_root(settings.config))
    warnings: list[str] = []
    prefect_problem: str | None = None
    if declarations is not None:
        (warnings if without_libraries else errors).extend(declarations.unusable.values())
    if project is not None and declarations is not None:
        findings: ParameterFindings | None = None
        try:
            findings = await ask_prefect(project, declarations) if ask_prefect is not None else None
        except SluiceError as error:
            prefect_problem = str(error)
            warnings.append(f"Prefect could not be asked which parameters its deployments take: {error}")
        if findings is None:  # what other deployments there are is not known
            findings = ParameterFindings(check_parameters(project, declarations.signatures).errors)
        errors += findings.errors
        warnings += findings.warnings
    if errors or project is None or declarations is None:
        raise ConfigError(*errors)
    tests = sum(len(rule.spec.tests) for rule in project.rules.rules)
    return Checked(project, tests, declarations, tuple(warnings), prefect_problem)
