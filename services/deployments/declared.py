"""The deployments that the project's flow files declare, or all of their mistakes at once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from config.parameters import Signature
from config.yaml_file import KeyPath
from events.errors import ConfigError
from services.deployments.flow_code import CONSTANT, find_flow_code
from services.deployments.flow_file import FlowFile, FoundFlow, LibraryMissing, read_flow_files
from services.deployments.options import Options, options_of, place_of
from services.executor.intake.run_policy import OWN_TAG
from services.home.prefect_pages import overview_key, page
from services.prefect_api.run_view import PROJECT_TAG

NAME: Final = "default"


@dataclass(frozen=True, slots=True)
class DeclaredDeployment:
    """A deployment as a flow file declares it: the flow's name, and the body for Prefect's API."""

    flow: str
    body: Mapping[str, Any]
    where: str
    """``file:line`` of the flow."""
    where_key: Callable[[KeyPath], str]
    """Returns ``file:line: DEPLOYMENT.key`` of a key."""

    @property
    def name(self) -> str:
        """``flow/deployment``."""
        return f"{self.flow}/{self.body['name']}"

    @property
    def signature(self) -> Signature:
        """The parameters that it takes."""
        return Signature(self.body["parameter_openapi_schema"], frozenset(self.body["parameters"]))


@dataclass(frozen=True, slots=True)
class Declarations:
    """The declared deployments, and remarks about flows that are not declared."""

    root: Path
    """The project's folder."""
    deployments: tuple[DeclaredDeployment, ...]
    notes: tuple[str, ...] = ()
    unusable: Mapping[str, str] = field(default_factory=dict)
    """Files whose flows are not among the deployments because a library is missing: the beginning of their entrypoints,
    and a sentence that names the library.
    """
    project: str | None = None
    """The project's name."""

    @property
    def signatures(self) -> dict[str, Signature]:
        """The signature of each deployment, by ``flow/deployment``."""
        return {one.name: one.signature for one in self.deployments}


def read_declarations(
    root: Path,
    *,
    environment: str,
    flows: Sequence[str] | None = None,
    where: str = "flows",
    project: str | None = None,
    templates: Mapping[str, Options] | None = None,
) -> Declarations:
    """Import every file with flows in ``root``, each in a process of its own, and take its deployments.

    ``flows`` names folders, files and modules; without it the folder ``flows`` is meant, if it is there. Files and
    folders whose name begins with ``_`` or ``.`` are not looked at; in the folders below, neither are files without a
    flow. The deployments are those for ``environment``, and have a tag with the name of the ``project``, and what the
    template of the environment says and their own file does not; all environments are checked. Raises `ConfigError`
    with every problem of every file, each as ``file:line: DEPLOYMENT.key: what is wrong — the fix``, or ``where: …``
    for one of ``flows``.
    """
    problems: list[str] = []
    files: list[FlowFile] = []
    unusable: dict[str, str] = {}
    codes, notes = find_flow_code(root, flows, where=where, problems=problems)
    for code, read in zip(codes, read_flow_files(codes, root), strict=True):
        match read:
            case ConfigError():
                problems += read.problems
            case LibraryMissing():
                unusable[code.entrypoint(root, "")] = str(read)
            case _:
                files.append(read)
    taken: dict[str, str] = {}
    found: list[DeclaredDeployment] = []
    chosen = [(file, *_chosen(file, files)) for file in files]
    for file, ours, left_out in chosen:
        notes += left_out
        problems += _duplicates(file, ours, taken)
        options, faults = _options(file, ours, templates or {})
        problems += faults
        if not faults:
            found += [
                _declared(file, one, options[environment], root=root, project=project, environment=environment)
                for one in ours
            ]
    if problems:
        raise ConfigError(*sorted(problems, key=_place))
    return Declarations(root, tuple(found), tuple(notes), unusable, project)


def _chosen(file: FlowFile, files: Sequence[FlowFile]) -> tuple[list[FoundFlow], list[str]]:
    """Return the flows that the file registers, and remarks about the others.

    A file registers the flows that it defines. One that defines none registers those that it imports, unless another
    file defines them: so a flow of a package gets a deployment.
    """
    own = [one for one in file.flows if one.own]
    elsewhere = {one.name for other in files for one in other.flows if one.own}
    imported = [one for one in file.flows if not one.own and one.name not in elsewhere]
    if own:
        return own, [
            f"{file.path}:{one.line}: the flow `{one.attribute}` is imported and gets no deployment from this file — "
            "a file of its own that only imports it would give it one"
            for one in imported
        ]
    if imported or file.options:
        return imported, []
    said = "there is no flow in it — a function with `@flow` at top level is one; a helper's name begins with `_`"
    return [], [f"{file.path}: {said}"]


def _duplicates(file: FlowFile, flows: Sequence[FoundFlow], taken: dict[str, str]) -> Iterator[str]:
    for one in flows:
        where = f"{file.path}:{one.line}"
        first = taken.setdefault(one.name, where)
        if first != where:
            yield f"{where}: the flow's name {one.name!r} is taken by {first} — give one of them another `name=`"


def _options(
    file: FlowFile, flows: Sequence[FoundFlow], templates: Mapping[str, Options]
) -> tuple[dict[str, Options], list[str]]:
    """Return the options for each environment with its template, and every mistake."""
    found, faults = options_of(file.options)
    if file.options and not flows:
        faults.insert(0, ((), f"the file has no flow that it could be for — add one, or take {CONSTANT} away"))
    for environment, options in found.items():
        template = templates.get(environment, Options())
        said = [*options.pool_faults(template), *(one for flow in flows for one in flow.misfits[environment])]
        if options.cron is not None and options.interval_seconds is not None:
            fix = "keep one of them (None takes one away in an environment)"
            said.append((("interval_seconds",), f"there is a `cron` too — {fix}"))
        faults += [(place_of(file.options, environment, key), what) for key, what in said]
        found[environment] = options.over(template)
    return found, [f"{file.where(key)}: {what}" for key, what in dict.fromkeys(faults)]


def _described(said: str | None, project: str | None) -> str:
    """Return the description of the deployment, with a link to the overview."""
    link = f"[Overview of Sluice]({page('', f'artifacts/key/{overview_key(project)}')})"
    return f"{said}\n\n{link}" if said else link


def _declared(
    file: FlowFile, one: FoundFlow, options: Options, *, root: Path, project: str | None, environment: str
) -> DeclaredDeployment:
    """Return the deployment of a flow as the body of Prefect's API, made from its file and options.

    The version is a digest of the file, so that a changed file shows as a changed deployment.
    """
    body: dict[str, Any] = {
        "name": NAME,
        "path": str(root),
        "entrypoint": file.code.entrypoint(root, one.attribute),
        "version": hashlib.sha256(file.source).hexdigest()[:12],
        "description": _described(options.description or one.description, project),
        "tags": sorted({OWN_TAG, *_own_tags(options, project), *options.tags}),
        "parameters": options.parameters,
        "parameter_openapi_schema": one.schema,
        "enforce_parameter_schema": True,
        "schedules": options.schedules(),
        "paused": options.paused,
        "job_variables": options.variables(),
        "work_pool_name": options.work_pool,
        "pull_steps": options.pull_steps(str(root)),
        "concurrency_limit": options.concurrency_limit,
    }
    if options.concurrency_limit is not None:
        strategy = {"wait": "ENQUEUE", "cancel": "CANCEL_NEW"}[options.on_concurrency_limit]
        body["concurrency_options"] = {"collision_strategy": strategy}
    return DeclaredDeployment(
        one.name, body, f"{file.path}:{one.line}", lambda key: file.where(place_of(file.options, environment, key))
    )


def _own_tags(options: Options, project: str | None) -> list[str]:
    named = ((PROJECT_TAG, project), ("owner:", options.owner))
    return [f"{prefix}{name}" for prefix, name in named if name]


def _place(problem: str) -> tuple[str, int]:
    match = re.match(r"(.*?\.py):(\d+):", problem)
    return (match[1], int(match[2])) if match else (problem, 0)
