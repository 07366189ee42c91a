"""The deployments that the project's flow files declare, or everything that is wrong with them at once."""

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
from events.suggest import did_you_mean
from services.deployments.flow_code import CONSTANT, find_flow_code
from services.deployments.flow_file import FlowFile, FoundFlow, LibraryMissing, read_flow_files
from services.deployments.options import ENVIRONMENTS, Options, option_faults, options_for
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
    """``file:line: DEPLOYMENT.key`` of what it says."""

    @property
    def name(self) -> str:
        """``flow/deployment``."""
        return f"{self.flow}/{self.body['name']}"

    @property
    def signature(self) -> Signature:
        """What it takes as parameters."""
        return Signature(self.body["parameter_openapi_schema"], frozenset(self.body["parameters"]))


@dataclass(frozen=True, slots=True)
class Declarations:
    """What the project declares, and what its reader should know of what it does not."""

    root: Path
    """The project's folder."""
    deployments: tuple[DeclaredDeployment, ...]
    notes: tuple[str, ...] = ()
    unusable: Mapping[str, str] = field(default_factory=dict)
    """The files whose flows are not among the deployments because a library is missing: how their entrypoints begin,
    and a sentence that says what is missing."""
    project: str | None = None
    """The project's name."""

    @property
    def signatures(self) -> dict[str, Signature]:
        """Of each deployment, by ``flow/deployment``."""
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
    """The flows that the file registers, and what is to be said of the others.

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
    """The options for each environment with what its template adds, and every fault."""
    problems: dict[str, None] = {}
    if file.options and not flows:
        problems[f"{file.where()}: the file has no flow that it could be for — add one, or take {CONSTANT} away"] = None
    plain = {key: value for key, value in file.options.items() if key != "environments"}
    overrides, faults = _environments(file)
    problems |= dict.fromkeys(faults)
    found: dict[str, Options] = {}
    for environment in ENVIRONMENTS:
        sound, said, own = options_for(file.options, environment)
        template = templates.get(environment, Options())
        if not said:
            found[environment] = sound.over(template)
        if sound.cron is not None and sound.interval_seconds is not None:
            fix = "keep one of them (None takes one away in an environment)"
            said.append((("interval_seconds",), f"there is a `cron` too — {fix}"))
        said += [*sound.pool_faults(template), *(one for flow in flows for one in flow.misfits[environment])]
        problems |= dict.fromkeys(f"{file.where(_place_in(own, environment, key))}: {what}" for key, what in said)
    problems |= dict.fromkeys(f"{file.where(key)}: {what}" for key, what in _overridden(plain, overrides))
    return found, list(problems)


def _place_in(own: Mapping[str, Any], environment: str, key: KeyPath) -> KeyPath:
    """Where a key stands that counts for the environment, which overrides ``own``."""
    return ("environments", environment, *key) if key and key[0] in own else key


def _environments(file: FlowFile) -> tuple[dict[str, Mapping[str, Any]], list[str]]:
    given = file.options.get("environments", {})
    key: KeyPath = ("environments",)
    if not isinstance(given, dict):
        return {}, [f"{file.where(key)}: {given!r} does not fit — write a mapping, such as {{'production': {{…}}}}"]
    problems = [
        f"{file.where((*key, name))}: there is no environment {name!r} — {did_you_mean(name, ENVIRONMENTS)}"
        for name in given
        if name not in ENVIRONMENTS
    ]
    problems += [
        f"{file.where((*key, name))}: {value!r} does not fit — write a mapping"
        for name, value in given.items()
        if not isinstance(value, dict)
    ]
    known: dict[str, Mapping[str, Any]] = {
        name: value for name, value in given.items() if name in ENVIRONMENTS and isinstance(value, dict)
    }
    # What a misspelt environment holds is checked too, so that the next look finds nothing more.
    for name, value in given.items():
        if name not in ENVIRONMENTS and isinstance(value, dict):
            problems += [f"{file.where((*key, name, *inside))}: {what}" for inside, what in option_faults(value)]
    return known, problems


def _overridden(plain: Mapping[str, Any], overrides: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[KeyPath, str]]:
    """The faults of what every environment overrides: no environment has shown them."""
    hidden = {key: value for key, value in plain.items() if all(key in overrides.get(one, {}) for one in ENVIRONMENTS)}
    yield from option_faults(hidden)


def _described(said: str | None, project: str | None) -> str:
    """What the deployment's page says, with a link to the overview."""
    link = f"[Overview of Sluice]({page('', f'artifacts/key/{overview_key(project)}')})"
    return f"{said}\n\n{link}" if said else link


def _declared(
    file: FlowFile, one: FoundFlow, options: Options, *, root: Path, project: str | None, environment: str
) -> DeclaredDeployment:
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
    own = options_for(file.options, environment)[2]
    return DeclaredDeployment(
        one.name,
        body,
        f"{file.path}:{one.line}",
        lambda key: file.where(_place_in(own, environment, key)),
    )


def _own_tags(options: Options, project: str | None) -> list[str]:
    named = ((PROJECT_TAG, project), ("owner:", options.owner))
    return [f"{prefix}{name}" for prefix, name in named if name]


def _place(problem: str) -> tuple[str, int]:
    match = re.match(r"(.*?\.py):(\d+):", problem)
    return (match[1], int(match[2])) if match else (problem, 0)
