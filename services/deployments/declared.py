"""The deployments that the files in ``flows/`` declare, or everything that is wrong with them at once."""

from __future__ import annotations

import hashlib
import inspect
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from prefect import Flow
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import validate
from pydantic import TypeAdapter, ValidationError

from config.faults import describe
from config.parameters import Signature
from config.settings import Settings
from config.yaml_file import KeyPath
from events.errors import ConfigError
from events.suggest import did_you_mean
from services.deployments.flow_file import CONSTANT, FlowFile, FoundFlow, read_flow_file, seems_to_hold_flows
from services.deployments.options import Options
from services.executor.intake.run_policy import OWN_TAG

NAME: Final = "default"
FOLDER: Final = "flows"
ENVIRONMENTS: Final[tuple[str, ...]] = get_args(Settings.model_fields["env"].annotation)


@dataclass(frozen=True, slots=True)
class DeclaredDeployment:
    """A deployment as a flow file declares it: the flow's name, and the body for Prefect's API."""

    flow: str
    body: Mapping[str, Any]
    where: str
    """``file:line`` of the flow."""

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

    deployments: tuple[DeclaredDeployment, ...]
    notes: tuple[str, ...] = ()

    @property
    def signatures(self) -> dict[str, Signature]:
        """Of each deployment, by ``flow/deployment``."""
        return {one.name: one.signature for one in self.deployments}


def read_declarations(root: Path, *, environment: str) -> Declarations:
    """Import every file of ``root``/flows and take its deployments for ``environment``; all environments are checked.

    Files whose name begins with ``_`` are helpers and are not looked at. The working directory is ``root`` meanwhile.
    Raises `ConfigError` with every problem of every file, each as
    ``file:line: DEPLOYMENT.key: what is wrong — the fix``.
    """
    if not (root / FOLDER).is_dir():
        raise ConfigError(f"{root / FOLDER}: there is no such folder — the project's flow files lie in it")
    problems: list[str] = []
    files: list[FlowFile] = []
    before = Path.cwd()
    os.chdir(root)
    try:
        for path in sorted((root / FOLDER).glob("*.py")):
            if not path.name.startswith("_"):
                try:
                    files.append(read_flow_file(path))
                except ConfigError as error:
                    problems += error.problems
    finally:
        os.chdir(before)
    notes = [_below(path) for path in _files_below(root / FOLDER)]
    taken: dict[str, str] = {}
    found: list[DeclaredDeployment] = []
    chosen = [(file, *_chosen(file, files)) for file in files]
    for file, flows, left_out in chosen:
        notes += left_out
        problems += _duplicates(file, flows, taken)
        options, faults = _options(file, flows)
        problems += faults
        if not faults:
            found += [_declared(file, one, options[environment], root) for one in flows]
    if problems:
        raise ConfigError(*sorted(problems, key=_place))
    return Declarations(tuple(found), tuple(notes))


def _chosen(file: FlowFile, files: Sequence[FlowFile]) -> tuple[list[FoundFlow], list[str]]:
    """The flows that the file registers, and what is to be said of the others.

    A file registers the flows that it defines. One that defines none registers those that it imports, unless another
    file defines them: so a flow of a package gets a deployment.
    """
    own = [one for one in file.flows if one.own]
    elsewhere = {one.flow.name for other in files for one in other.flows if one.own}
    imported = [one for one in file.flows if not one.own and one.flow.name not in elsewhere]
    if own:
        return own, [
            f"{file.path}:{one.line}: the flow `{one.attribute}` is imported and gets no deployment from this file — "
            f"a file of its own in {FOLDER}/ that only imports it would give it one"
            for one in imported
        ]
    if imported or file.options:
        return imported, []
    said = "there is no flow in it — a function with `@flow` at top level is one; a helper's name begins with `_`"
    return [], [f"{file.path}: {said}"]


def _duplicates(file: FlowFile, flows: Sequence[FoundFlow], taken: dict[str, str]) -> Iterator[str]:
    for one in flows:
        where = f"{file.path}:{one.line}"
        first = taken.setdefault(one.flow.name, where)
        if first != where:
            yield f"{where}: the flow's name {one.flow.name!r} is taken by {first} — give one of them another `name=`"


def _options(file: FlowFile, flows: Sequence[FoundFlow]) -> tuple[dict[str, Options], list[str]]:
    """The options for each environment, and every fault."""
    problems: dict[str, None] = {}
    if file.options and not flows:
        problems[f"{file.where()}: the file has no flow that it could be for — add one, or take {CONSTANT} away"] = None
    plain = {key: value for key, value in file.options.items() if key != "environments"}
    overrides, faults = _environments(file)
    problems |= dict.fromkeys(faults)
    found: dict[str, Options] = {}
    for environment in ENVIRONMENTS:
        own = overrides.get(environment, {})

        def place(key: KeyPath, own: Mapping[str, Any] = own, environment: str = environment) -> KeyPath:
            return ("environments", environment, *key) if key and key[0] in own else key

        given = {**plain, **own}
        said = list(_faults(given))
        sound = Options(**{key: value for key, value in given.items() if key not in {fault[0][0] for fault in said}})
        if not said:
            found[environment] = sound
        said += _misfits(sound, flows)
        problems |= dict.fromkeys(f"{file.where(place(key))}: {what}" for key, what in said)
    problems |= dict.fromkeys(f"{file.where(key)}: {what}" for key, what in _overridden(plain, overrides))
    return found, list(problems)


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
            problems += [f"{file.where((*key, name, *inside))}: {what}" for inside, what in _faults(value)]
    return known, problems


def _overridden(plain: Mapping[str, Any], overrides: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[KeyPath, str]]:
    """The faults of what every environment overrides: no environment has shown them."""
    hidden = {key: value for key, value in plain.items() if all(key in overrides.get(one, {}) for one in ENVIRONMENTS)}
    yield from _faults(hidden)


def _faults(values: Mapping[str, Any]) -> Iterator[tuple[KeyPath, str]]:
    try:
        Options(**values)
    except ValidationError as error:
        yield from describe(error, Options)


def _misfits(options: Options, flows: Sequence[FoundFlow]) -> Iterator[tuple[KeyPath, str]]:
    """What does not fit between the options, and between them and the flows."""
    if options.cron is not None and options.interval_seconds is not None:
        yield ("interval_seconds",), "there is a `cron` too — keep one of them (None takes one away in an environment)"
    for one in flows:
        schema = parameter_schema(one.flow).model_dump_for_openapi()
        signature = Signature(schema, frozenset(options.parameters))
        for name, value in options.parameters.items():
            key: KeyPath = ("parameters", name)
            if name in signature.properties:
                yield from ((key, what) for what in _wrong_values(one.flow, name, value, schema))
            elif not signature.takes_others:
                near = did_you_mean(name, signature.properties)
                yield key, f"the flow {one.flow.name!r} takes no parameter {name!r} — {near}"
        if options.schedules():
            for name in signature.needs:
                said = f"its runs would lack the parameter {name!r} that the flow {one.flow.name!r} needs — "
                fix = "add it under `parameters`, or give it a default in the flow"
                yield ("cron" if options.cron is not None else "interval_seconds",), said + fix


def _wrong_values(flow: Flow[..., Any], name: str, value: Any, schema: Mapping[str, Any]) -> Iterator[str]:
    """Why Prefect's server would refuse the value, or else the flow itself at its start."""
    prefix = f"{value!r} does not fit the parameter {name!r} of the flow {flow.name!r}: "
    refused = [error.message for error in validate({name: value}, dict(schema), ignore_required=True)]
    if not refused and flow.should_validate_parameters:
        refused = _mistyped(flow, name, value)
    yield from (prefix + what for what in refused[:1])


def _mistyped(flow: Flow[..., Any], name: str, value: Any) -> list[str]:
    try:
        parameter = inspect.signature(flow.fn, eval_str=True).parameters[name]
        if parameter.kind in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL}:
            return []  # the annotation is that of one of many
        adapter = TypeAdapter(parameter.annotation)
    except Exception:  # noqa: BLE001 - an annotation that pydantic cannot evaluate: the schema has decided
        return []
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        return [one["msg"][:1].lower() + one["msg"][1:] for one in error.errors()]
    return []


def _declared(file: FlowFile, one: FoundFlow, options: Options, root: Path) -> DeclaredDeployment:
    body: dict[str, Any] = {
        "name": NAME,
        "path": str(root),
        "entrypoint": f"{file.path.relative_to(root)}:{one.attribute}",
        "version": hashlib.sha256(file.source).hexdigest()[:12],
        "description": options.description or one.flow.description,
        "tags": sorted({OWN_TAG, *options.tags}),
        "parameters": options.parameters,
        "parameter_openapi_schema": parameter_schema(one.flow).model_dump_for_openapi(),
        "enforce_parameter_schema": True,
        "schedules": options.schedules(),
        "paused": options.paused,
        "job_variables": options.variables(),
        "work_pool_name": None,
        "concurrency_limit": options.concurrency_limit,
    }
    if options.concurrency_limit is not None:
        strategy = {"wait": "ENQUEUE", "cancel": "CANCEL_NEW"}[options.on_concurrency_limit]
        body["concurrency_options"] = {"collision_strategy": strategy}
    return DeclaredDeployment(one.flow.name, body, f"{file.path}:{one.line}")


def _place(problem: str) -> tuple[str, int]:
    match = re.match(r"(.*?\.py):(\d+):", problem)
    return (match[1], int(match[2])) if match else (problem, 0)


def _files_below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*.py")):
        inside = path.relative_to(folder).parts
        if len(inside) > 1 and not any(part.startswith(("_", ".")) for part in inside) and seems_to_hold_flows(path):
            yield path


def _below(path: Path) -> str:
    return f"{path}: its flows get no deployments — only files that lie directly in {FOLDER}/ are registered"
