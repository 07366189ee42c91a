"""Loading the flow of a deployment as Prefect's runner loads it, and saying in a sentence why that does not work."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any, Final

from prefect import Flow
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import MissingFlowError, ScriptError
from prefect.flows import load_flow_from_entrypoint, load_flow_from_flow_run, load_function_and_convert_to_flow
from prefect.utilities.asyncutils import run_coro_as_sync

_LIBRARIES: Final = (Path(__file__).resolve().parent, Path(os.__file__).resolve().parent)


def load_flow(flow_run: FlowRun, deployment: DeploymentResponse, *, working_dir: str | None) -> Flow[..., Any]:
    """Go to the deployment's folder and import its flow there; raises whatever the flow's code raises."""
    entrypoint = deployment.entrypoint
    if entrypoint is None:
        msg = f"the deployment {deployment.name!r} names no entrypoint"
        raise ValueError(msg)
    if deployment.pull_steps or deployment.storage_document_id:
        _start_in(working_dir or tempfile.mkdtemp(prefix="sluice-run-"))
        return run_coro_as_sync(load_flow_from_flow_run(flow_run, use_placeholder_flow=False))
    _start_in(deployment.path or ".")
    sys.path.insert(0, ".")
    flow = import_flow(entrypoint)
    if working_dir:
        os.chdir(working_dir)
    return flow


def _start_in(folder: str) -> None:
    """Go there, and import from there wherever the flow goes later: as ``python -m`` does when it is started there."""
    os.chdir(folder)
    sys.path.insert(0, str(Path.cwd()))


def import_flow(entrypoint: str) -> Flow[..., Any]:
    """The flow at ``entrypoint``, relative to the working directory."""
    try:
        return load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
    except MissingFlowError:
        return load_function_and_convert_to_flow(entrypoint)


def describe_failure(error: BaseException) -> str:
    """Why a flow could not be loaded: what, and in which line of which file of the user's."""
    cause: BaseException = error
    while isinstance(cause, ScriptError) and cause.user_exc is not None:
        cause = cause.user_exc
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
