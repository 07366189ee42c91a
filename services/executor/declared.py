"""The deployments that flow files declare: one for each ``@flow`` function, tuned by the file's ``DEPLOYMENT``."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from prefect.utilities.callables import parameter_schema
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from events.errors import ConfigError
from services.executor.catalog import OWN_TAG, Priority
from services.executor.loading import describe_failure, import_flow

NAME: Final = "default"


class Options(BaseModel):
    """What a flow file's ``DEPLOYMENT`` may say; under ``environments``, the same for one environment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str | None = None
    cron: str | None = None
    interval_seconds: Annotated[float, Field(gt=0)] | None = None
    timezone: str = "UTC"
    paused: bool = False
    parameters: dict[str, Any] = Field(default_factory=dict)
    tags: tuple[str, ...] = ()
    concurrency_limit: Annotated[int, Field(ge=1)] | None = None
    on_concurrency_limit: Literal["wait", "cancel"] = "wait"
    executor: str | None = None
    """The name of the executors that run it."""
    priority: Priority = Priority.NORMAL
    memory_mb: Annotated[float, Field(gt=0)] | None = None
    time_seconds: Annotated[float, Field(gt=0)] | None = None
    on_lost: Literal["crash", "restart"] = "crash"
    """What becomes of a run whose machine or slot died."""
    job_variables: dict[str, Any] = Field(default_factory=dict)

    def variables(self) -> dict[str, Any]:
        """The deployment's job variables."""
        own = {
            "sluice_executor": self.executor,
            "sluice_priority": None if self.priority is Priority.NORMAL else str(self.priority),
            "sluice_memory_mb": self.memory_mb,
            "sluice_time_seconds": self.time_seconds,
            "sluice_on_lost": None if self.on_lost == "crash" else self.on_lost,
        }
        return {**self.job_variables, **{name: value for name, value in own.items() if value is not None}}

    def schedules(self) -> list[dict[str, Any]]:
        """The deployment's schedules, as Prefect's API takes them."""
        schedules: list[dict[str, Any]] = []
        if self.cron is not None:
            schedules.append({"cron": self.cron, "timezone": self.timezone})
        if self.interval_seconds is not None:
            schedules.append({"interval": self.interval_seconds, "timezone": self.timezone})
        return [{"schedule": schedule, "active": True} for schedule in schedules]


def declared(file: Path, *, root: Path, environment: str) -> list[tuple[str, dict[str, Any]]]:
    """The deployments of one file: the flow's name, and the body for Prefect's API.

    The file is imported, with ``root`` as the working directory. Raises `ConfigError` naming file and line.
    """
    functions, given = _read(file)
    relative = file.relative_to(root)
    options = _options(given, file, environment)
    found = []
    for function in functions:
        entrypoint = f"{relative}:{function}"
        try:
            flow = import_flow(str(entrypoint))
        except Exception as error:  # whatever the file raises while it is imported
            msg = f"{file}: the flow {function} cannot be loaded: {describe_failure(error)}"
            raise ConfigError(msg) from error
        body: dict[str, Any] = {
            "name": NAME,
            "path": str(root),
            "entrypoint": entrypoint,
            "version": hashlib.sha256(file.read_bytes()).hexdigest()[:12],
            "description": options.description or flow.description,
            "tags": sorted({OWN_TAG, *options.tags}),
            "parameters": options.parameters,
            "parameter_openapi_schema": parameter_schema(flow).model_dump_for_openapi(),
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
        found.append((flow.name, body))
    return found


def _read(file: Path) -> tuple[Sequence[str], Mapping[str, Any]]:
    """The names of the decorated functions, and the value of ``DEPLOYMENT``, without running the file."""
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    except SyntaxError as error:
        msg = f"{file}, line {error.lineno}: {error.msg}"
        raise ConfigError(msg) from error
    functions = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and any(map(_is_flow, node.decorator_list))
    ]
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == "DEPLOYMENT" and isinstance(node, ast.Assign | ast.AnnAssign):
            try:
                return functions, ast.literal_eval(node.value) if node.value is not None else {}
            except ValueError as error:
                msg = f"{file}, line {node.lineno}: DEPLOYMENT must be a plain dictionary of constants"
                raise ConfigError(msg) from error
    return functions, {}


def _is_flow(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", None)
    return name == "flow"


def _options(given: Mapping[str, Any], file: Path, environment: str) -> Options:
    overrides = given.get("environments", {}).get(environment, {})
    plain = {key: value for key, value in given.items() if key != "environments"}
    try:
        return Options(**{**plain, **overrides})
    except ValidationError as error:
        problems = [
            f"{file}: DEPLOYMENT key {'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}; "
            f"got {fault['input']!r}"
            for fault in error.errors()
        ]
        raise ConfigError(*problems) from error
