"""Which deployments' runs are executed here, and on which queue."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Final

from services.job_queues.rq_keys import RUNS
from services.store.runs.registered_files import RegisteredFile

if TYPE_CHECKING:
    from services.prefect_api.deployments import Deployment

OWN_TAG: Final = "sluice"
DEFAULT_EXECUTOR: Final = "default"

EXECUTOR_VARIABLE: Final = "sluice_executor"
PRIORITY_VARIABLE: Final = "sluice_priority"


class Priority(StrEnum):
    """The order in which slots read the queues."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


@dataclass(frozen=True, slots=True)
class RunPolicy:
    """Which deployments this executor takes: registered ones, and those that ``globs`` on ``flow/deployment`` match.

    ``registered`` returns what `sluice deploy` registered under a deployment's id; only such deployments are the
    project's own.
    """

    executor: str
    globs: Sequence[str]
    registered: Callable[[str], RegisteredFile | None]

    def refusal(self, deployment: Deployment) -> str | None:
        """Return why this executor leaves the deployment's runs alone, None when it takes them."""
        if deployment.work_pool:
            return f"it belongs to the work pool {deployment.work_pool}"
        pinned = deployment.job_variables.get(EXECUTOR_VARIABLE)
        if str(pinned or DEFAULT_EXECUTOR) != self.executor:
            no = f"no executor, so that one of the name {DEFAULT_EXECUTOR} takes it"
            return f"it is pinned to {f'the executor {pinned}' if pinned else no}"
        meant = self.registered(deployment.id)
        if meant is not None and not deployment.remote and _is(deployment, meant):
            return None  # taken even when it cannot be loaded: its runs then say why
        if any(fnmatchcase(deployment.name, glob) for glob in self.globs):
            return loading_problem(deployment)
        if meant is not None:
            return "its code is not what `sluice deploy` registered any more: deploy again"
        return "`sluice deploy` has not registered it, and executor.deployments does not name it"

    def queue(self, deployment: Deployment) -> str:
        """Return the name of the queue for the deployment's runs."""
        wanted = str(deployment.job_variables.get(PRIORITY_VARIABLE) or Priority.NORMAL)
        return queue_name(self.executor, Priority(wanted) if wanted in list(Priority) else Priority.NORMAL)


def _is(deployment: Deployment, meant: RegisteredFile) -> bool:
    return (deployment.path, deployment.entrypoint) == (meant.path, meant.entrypoint)


def queue_name(executor: str, priority: Priority) -> str:
    """Return the name of an executor's queue of one priority; the default executor's normal queue has no suffix."""
    name = RUNS if executor == DEFAULT_EXECUTOR else f"{RUNS}-{executor}"
    return name if priority is Priority.NORMAL else f"{name}-{priority}"


def queue_names(executor: str) -> list[str]:
    """Return the queues of an executor's slots, highest priority first."""
    return [queue_name(executor, priority) for priority in Priority]


def loading_problem(deployment: Deployment) -> str | None:
    """Return why the deployment's code cannot be loaded on this machine, None when it may be."""
    if deployment.entrypoint is None:
        return "it names no entrypoint"
    if deployment.remote:
        return None
    folder = Path(deployment.path or ".")
    if "$STORAGE_BASE_PATH" in str(folder):
        return "its code was fetched by the process that served it"
    if not folder.is_absolute():
        return (
            f"its path, {str(folder)!r}, is relative, so that nobody knows which file is meant: deploy an absolute one"
        )
    file, colon, _ = deployment.entrypoint.rpartition(":")
    target = folder / file if colon else folder
    return None if os.path.exists(target) else f"{target} does not exist on this machine"  # noqa: PTH110 - a glance
