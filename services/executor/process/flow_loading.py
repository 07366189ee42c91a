"""Loads the flow of a deployment as Prefect's runner does, and describes in a sentence why it cannot be loaded."""

from __future__ import annotations

import ast
import os
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from prefect import Flow
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import MissingFlowError, ScriptError
from prefect.flows import load_flow_from_entrypoint, load_flow_from_flow_run, load_function_and_convert_to_flow
from prefect.utilities.asyncutils import run_coro_as_sync

from events.suggest import did_you_mean
from services.common.project_imports import enter_project
from sluice.display import visible


class UnloadableError(Exception):
    """Why a flow cannot be loaded, as a sentence that is shown without the exception's name."""


_LIBRARIES: Final = (Path(__file__).resolve().parents[1], Path(os.__file__).resolve().parent)


def job_variables(deployment: DeploymentResponse, flow_run: FlowRun) -> dict[str, Any]:
    """Return the job variables of a run: its deployment's, and its own in their place."""
    return {**(deployment.job_variables or {}), **(flow_run.job_variables or {})}


def given_environment(variables: Mapping[str, Any]) -> dict[str, str]:
    """Return the environment variables among the job variables."""
    return {str(name): str(value) for name, value in (variables.get("env") or {}).items()}


def load_flow(flow_run: FlowRun, deployment: DeploymentResponse, *, working_dir: str | None) -> Flow[..., Any]:
    """Change to the deployment's folder and import its flow; raises whatever the flow's code raises."""
    entrypoint = deployment.entrypoint
    if entrypoint is None:
        msg = f"the deployment {deployment.name!r} names no entrypoint"
        raise ValueError(msg)
    if deployment.pull_steps or deployment.storage_document_id:
        _start_in(working_dir or tempfile.mkdtemp(prefix="sluice-run-"))
        return run_coro_as_sync(load_flow_from_flow_run(flow_run, use_placeholder_flow=False))
    if not Path(deployment.path or ".").is_absolute():
        raise UnloadableError(f"the folder of its deployment, {deployment.path!r}, is no absolute path")
    _start_in(deployment.path or ".")
    sys.path.insert(0, ".")
    flow = import_flow(entrypoint)
    if working_dir:
        try:
            os.chdir(working_dir)
        except OSError as error:
            raise UnloadableError(_no_entry(working_dir, "the working_dir of its job variables", error)) from error
    return flow


def _no_entry(folder: str, what: str, error: OSError) -> str:
    return f"{what}, {folder}, cannot be entered: {error.strerror}"


def _start_in(folder: str) -> None:
    """Change to the folder and put it on the import path, as ``python -m`` does when it is started there."""
    try:
        enter_project(folder)
    except OSError as error:
        raise UnloadableError(_no_entry(folder, "the folder of its deployment", error)) from error


def import_flow(entrypoint: str) -> Flow[..., Any]:
    """Import the flow at ``entrypoint``, relative to the working directory."""
    file, colon, name = entrypoint.rpartition(":")
    if colon and not Path(file).is_file():
        raise UnloadableError(f"the file {_shown(file)} does not exist")
    try:
        return load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
    except MissingFlowError as error:
        if not colon:
            raise
        missing = error
    try:
        return load_function_and_convert_to_flow(entrypoint)
    except (RuntimeError, TypeError, ValueError) as error:
        raise UnloadableError(_missing(file, name)) from (error if isinstance(error, TypeError) else missing)


def _missing(file: str, name: str) -> str:
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    defined = ", ".join(functions) or "none"
    return f"{_shown(file)} has no flow {name!r}: {did_you_mean(name, functions)} Its functions: {defined}"


def describe_failure(error: BaseException) -> str:
    """Return why a flow could not be loaded: the error, with file and line of the user's code, safe to display."""
    return visible(_described(error))


def _described(error: BaseException) -> str:
    """Return an import error as one line, with the place in the user's own code if it was raised there."""
    cause: BaseException = error
    while isinstance(cause, ScriptError) and cause.user_exc is not None:
        cause = cause.user_exc
    if isinstance(cause, UnloadableError):
        return str(cause)
    what = "".join(traceback.format_exception_only(cause)).strip().splitlines()[-1]
    if isinstance(cause, SyntaxError) and cause.filename:
        return f"{_shown(cause.filename)}, line {cause.lineno}: {what}"
    own = [
        frame
        for frame in traceback.extract_tb(cause.__traceback__)
        if not frame.filename.startswith("<") and not _is_library(frame.filename)
    ]
    if own:
        return f"{_shown(own[-1].filename)}, line {own[-1].lineno}: {what}"
    return what


def _is_library(filename: str) -> bool:
    path = Path(filename).resolve()
    return "site-packages" in path.parts or any(path.is_relative_to(folder) for folder in _LIBRARIES)


def _shown(filename: str) -> str:
    return str(Path(filename).resolve())
