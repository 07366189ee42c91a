"""The plan of `sluice deploy`: the project's declarations compared with Prefect's deployments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from events.errors import ConfigError
from services.deployments.declared import Declarations, DeclaredDeployment
from services.prefect_api.run_view import PROJECT_TAG

PROJECT_LABEL: Final = "sluice.project"
HOST_LABEL: Final = "sluice.host"
"""The labels of a deployment that say which installation registered it, and on which machine."""

Action = Literal["create", "change", "unchanged", "remove", "pause", "leave"]

_COMPARED: Final = (
    "entrypoint",
    "path",
    "description",
    "tags",
    "parameters",
    "paused",
    "job_variables",
    "concurrency_limit",
    "concurrency_options",
    "schedules",
    "work_pool_name",
    "pull_steps",
    "enforce_parameter_schema",
)
_LONGEST: Final = 60


@dataclass(frozen=True, slots=True)
class RegisteredDeployment:
    """A deployment that Prefect has, and its runs that are not over, by the name of their state.

    Runs that only its schedule has made and that have not begun are not counted: they go with the schedule.
    """

    name: str
    body: Mapping[str, Any]
    open_runs: Mapping[str, int]

    @property
    def labels(self) -> Mapping[str, Any]:
        """Its labels."""
        return self.body.get("labels") or {}


@dataclass(frozen=True, slots=True)
class PlanStep:
    """The change to one deployment, and its reason."""

    action: Action
    deployment: str
    details: tuple[str, ...] = ()
    """What changes, or why; a sentence each."""
    deployment_id: str | None = None
    body: Mapping[str, Any] | None = None
    warning: str | None = None
    """The most important one of the details."""

    def as_row(self) -> dict[str, Any]:
        """For `--json`."""
        return {"action": self.action, "deployment": self.deployment, "details": list(self.details)}


def make_plan(
    declarations: Declarations,
    registered: Sequence[RegisteredDeployment],
    *,
    project: str,
    host: str,
    poolless: Mapping[str, str],
) -> list[PlanStep]:
    """The steps, ordered by name. ``project`` and ``host`` mark what is registered.

    Those that are ``poolless`` are left as they are, with the sentence that says why. Raises `ConfigError`
    for deployments of a project with another name.
    """
    declared = declarations.deployments
    known = {one.name: one for one in registered}
    marks = {PROJECT_LABEL: project, HOST_LABEL: host}
    clashes = [
        _clash(one, owner)
        for one in registered
        if one.name in {ours.name for ours in declared}
        and one.labels.get(PROJECT_LABEL) not in {None, project}
        and (owner := _named(one)) not in {None, declarations.project}
    ]
    if clashes:
        raise ConfigError(*clashes)
    steps = [
        PlanStep("leave", one.name, (poolless[one.name],))
        if one.name in poolless
        else _put(one, known.get(one.name), marks)
        for one in declared
    ]
    wanted = {one.name for one in declared}
    steps += [
        _gone(one, host=host, declarations=declarations)
        for one in registered
        if one.name not in wanted and one.labels.get(PROJECT_LABEL) == project
    ]
    return sorted(steps, key=lambda step: step.deployment)


def _put(one: DeclaredDeployment, there: RegisteredDeployment | None, marks: Mapping[str, str]) -> PlanStep:
    """Return whether a declared deployment is created, changed or unchanged, and the differences."""
    body = {**one.body, "labels": dict(marks)}
    if there is None:
        return PlanStep("create", one.name, (str(body["entrypoint"]),), None, body)
    warning = _taken_over(there, marks)
    details = [*([warning] if warning else []), *_differences(there.body, body)]
    if (host := there.labels.get(HOST_LABEL)) != marks[HOST_LABEL] and warning is None:
        details.append(f"the machine: {host} → {marks[HOST_LABEL]}")
    return PlanStep(
        "change" if details else "unchanged", one.name, tuple(details), str(there.body["id"]), body, warning
    )


def _clash(one: RegisteredDeployment, owner: str | None) -> str:
    return (
        f"the deployment {one.name} belongs to the project {owner!r} ({one.body.get('path')} on "
        f"{one.labels.get(HOST_LABEL)}): give the flow here another name, as in `@flow(name=…)`; or, if it is gone "
        f"there, remove it first: prefect deployment delete {one.name}"
    )


def _named(one: RegisteredDeployment) -> str | None:
    """The name of the project that registered it, if it has one."""
    tags = (tag for tag in one.body.get("tags") or () if tag.startswith(PROJECT_TAG))
    return next((tag.removeprefix(PROJECT_TAG) for tag in tags), None)


def _taken_over(there: RegisteredDeployment, marks: Mapping[str, str]) -> str | None:
    """Return a warning if the registered deployment is not of this project; None if it is."""
    owner = there.labels.get(PROJECT_LABEL)
    if owner == marks[PROJECT_LABEL]:
        return None
    if owner is None:
        return f"taken over: it was not registered by Sluice ({there.body.get('path')}, {there.body.get('entrypoint')})"
    return (
        f"taken over from another project ({there.body.get('path')} on {there.labels.get(HOST_LABEL)}): "
        "two projects with flows of one name replace each other's deployments; a `name` in each sluice.yaml prevents it"
    )


def _gone(one: RegisteredDeployment, *, host: str, declarations: Declarations) -> PlanStep:
    """Return what to do with a registered deployment that the project does not declare.

    It is removed only if it is certain that its flow is gone: the file may also be on another machine, on a disk that
    is not mounted, or not importable at the moment.
    """
    path, entrypoint = Path(str(one.body.get("path") or ".")), str(one.body.get("entrypoint") or "")
    deployment_id = str(one.body["id"])
    by_hand = f"to remove it: prefect deployment delete {one.name}"
    if path == declarations.root:
        if entrypoint.startswith(tuple(declarations.unusable)):
            why = f"{entrypoint} cannot be imported here, so it stays as it is"
            return PlanStep("leave", one.name, (why,))
        if not declarations.deployments:
            why = f"{path} has no flow at all, as if something were not mounted; {by_hand}"
            return PlanStep("leave", one.name, (why,))
    else:
        origin = str(one.labels.get(HOST_LABEL))
        if origin != host:
            return PlanStep("leave", one.name, (f"{path} on the machine {origin} cannot be seen from here; {by_hand}",))
        if not path.is_dir():  # renamed, or on a disk that is not mounted
            return _pause(one, deployment_id, f"{path} is not there; {by_hand}")
        if (path / entrypoint.partition(":")[0]).exists():
            return PlanStep("leave", one.name, (f"{path} still has {entrypoint}: deploy there, or {by_hand}",))
    return _remove(one, deployment_id, f"{entrypoint} is gone")


def _remove(one: RegisteredDeployment, deployment_id: str, gone: str) -> PlanStep:
    if one.open_runs:
        return _pause(one, deployment_id, gone, _open(one))
    return PlanStep("remove", one.name, (gone,), deployment_id)


def _pause(one: RegisteredDeployment, deployment_id: str, *why: str) -> PlanStep:
    if one.body.get("paused"):
        return PlanStep("leave", one.name, ("paused already", *why))
    return PlanStep("pause", one.name, why, deployment_id)


def _open(one: RegisteredDeployment) -> str:
    runs = ", ".join(f"{count} {name}" for name, count in sorted(one.open_runs.items()))
    return f"kept for its runs that are not over ({runs}): end or cancel them, and deploy again to remove it"


def _differences(there: Mapping[str, Any], body: Mapping[str, Any]) -> Iterator[str]:
    """Yield how the registered deployment differs from the declared one, in words."""
    for name in _COMPARED:
        before, after = _comparable(name, there), _comparable(name, body)
        if before != after:
            yield f"{name}: {_shown(before)} → {_shown(after)}"
    if there.get("parameter_openapi_schema") != body["parameter_openapi_schema"]:
        yield "the parameters that the flow takes"
    if there.get("version") != body["version"]:
        yield "the flow's file"


def _comparable(name: str, body: Mapping[str, Any]) -> Any:
    """Return a value in the form in which both sides can be compared: Prefect returns some others than it is given."""
    value = body.get(name)
    if name == "concurrency_limit":
        return value if value is not None else (body.get("global_concurrency_limit") or {}).get("limit")
    if name == "concurrency_options":
        return (value or {}).get("collision_strategy")
    if name == "schedules":
        return [_schedule(one) for one in value or ()]
    if name == "paused":
        return "yes" if value else "no"
    return value or None


def _schedule(given: Mapping[str, Any]) -> str:
    schedule = given["schedule"]
    text = schedule.get("cron") or f"every {float(schedule['interval']):g} s"
    return f"{text} {schedule.get('timezone')}{'' if given.get('active', True) else ', inactive'}"


def _shown(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    text = text if value else "none"
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
