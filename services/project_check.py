"""Everything that can be said of a project before it runs: the file, its tests, and the deployments it names."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from config.parameters import Findings
from config.project import Project, load_project, run_rule_tests
from config.settings import Settings
from events.errors import ConfigError, SluiceError


@dataclass(frozen=True, slots=True)
class Checked:
    """A project without an error, and what is to be said of it."""

    project: Project
    tests: int
    warnings: Sequence[str] = ()


async def check_project(
    settings: Settings, *, ask_prefect: Callable[[Project], Awaitable[Findings]] | None = None
) -> Checked:
    """Raises `ConfigError` with everything that is wrong; ``ask_prefect`` holds the rules against the deployments.

    A Prefect that cannot be asked is a warning.
    """
    project = load_project(settings.config, home=settings.home)
    errors = run_rule_tests(project)
    warnings: list[str] = []
    if ask_prefect is not None:
        try:
            findings = await ask_prefect(project)
        except SluiceError as error:
            warnings.append(f"the deployments could not be asked about their parameters: {error}")
        else:
            errors += findings.errors
            warnings += findings.warnings
    if errors:
        raise ConfigError(*errors)
    tests = sum(len(rule.spec.tests) for rule in project.rules.rules)
    return Checked(project, tests, tuple(warnings))
