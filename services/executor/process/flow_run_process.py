"""The run process: claims one flow run, and runs it through Prefect's engine as Prefect's own runner would.

The run and its process end together. Everything of this project that the process needs is imported at the top, because
the project's modules are removed before the flow is loaded.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import importlib
import inspect
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Final, NoReturn, cast
from uuid import UUID

import httpx
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import SyncClientContext
from prefect.exceptions import Abort, ObjectNotFound, Pause, PrefectHTTPStatusError, TerminationSignal
from prefect.flow_engine import run_flow
from prefect.logging.loggers import flow_run_logger
from prefect.settings import PREFECT_CLIENT_RETRY_EXTRA_CODES, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.states import Crashed, Failed
from prefect.utilities.engine import propose_state_sync

from services.common.process_tree import show_as
from services.common.project_imports import leave_checkout
from services.common.telemetry import tracing
from services.executor.messages import (
    ExecuteRun,
    FlowStarted,
    ProcessMessage,
    RunLimits,
    RunRefused,
    SuspendRun,
    TakeIntent,
)
from services.executor.pipes import PipeLines
from services.executor.process.announced_file import file_problem
from services.executor.process.claim import RunClaim
from services.executor.process.flow_loading import describe_failure, given_environment, job_variables, load_flow
from services.executor.process.own_states import OwnStates, waits_in_process, was_left
from services.executor.process.parameter_check import parameter_problem
from services.executor.process.pauses import hear_resumes
from services.executor.process.process_setup import pose_as_engine, replace_environment
from services.executor.process.server_options_cache import ServerOptionsCache
from services.executor.process.suspension import Suspension
from services.prefect_api.compat import set_intent
from sluice.display import visible
from sluice.protocol import FILE_VARIABLE, FOLDERS_VARIABLE

Report = Callable[[ProcessMessage], None]

_HEARTBEAT: Final = ("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "PREFECT_RUNNER_HEARTBEAT_FREQUENCY")
_READ_AT_IMPORT: Final = ("PREFECT_", "PYTHON")
"""Prefixes of variables that take effect when an interpreter starts or Prefect is imported, so not in a fork."""
_DATABASE_AWAY: Final = "500"
"""Status that Prefect's server returns while its database is away; Prefect's client would fail the flow at the first
one."""
_LATER: Final = frozenset({408, 429})
"""Statuses, other than a server's own failures, after which the same request may succeed later."""
_AT_RUN_TIME: Final = ("anyio._backends._asyncio", "pydantic.v1", "rich._emoji_codes", "sluice")
"""Modules that a run imports besides the flow and the engine."""


class FreshInterpreterNeeded(Exception):
    """The claimed run needs variables of its deployment that take effect only when an interpreter starts."""

    def __init__(self, instruction: ExecuteRun, environment: Mapping[str, str]) -> None:
        super().__init__()
        self.instruction = instruction
        self.environment = environment


class Prepared:
    """Client and settings for a run, made in the fork server and inherited by the fork.

    Neither of them has opened a connection or file.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        # Heartbeats from within the process cost a second at its end; the slot sends them unless Prefect's are wanted.
        updates: dict[Any, Any] = {}
        if not any(name in environment for name in _HEARTBEAT):
            updates[PREFECT_FLOWS_HEARTBEAT_FREQUENCY] = None
        if PREFECT_CLIENT_RETRY_EXTRA_CODES.name not in environment:
            updates[PREFECT_CLIENT_RETRY_EXTRA_CODES] = _DATABASE_AWAY
        self._settings = temporary_settings(updates=updates)
        self._settings.__enter__()  # until the process ends
        tracing.preload(environment)
        self.client = SyncClientContext()
        for name in _AT_RUN_TIME:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)


@dataclass(eq=False)
class FlowRunProcess:
    """One run in this process; ``report`` sends messages to the slot."""

    instruction: ExecuteRun
    report: Report
    _: KW_ONLY
    environment: Mapping[str, str]
    shelf: Path
    suspension: Suspension
    prepared: Prepared

    def __post_init__(self) -> None:
        self._id = UUID(self.instruction.run_id)

    def run(self) -> None:
        """Execute the run; return when Prefect has its final state or refused the claim.

        Raises `FreshInterpreterNeeded`, and what Prefect's client raises.
        """
        with self.prepared.client as context:
            client = context.client
            options = ServerOptionsCache(self.instruction.options)
            options.spare_requests(client)
            claim = RunClaim(self.instruction, options, self.report)
            claimed = client.read_flow_run(self._id) if self.instruction.claimed else claim.take(client)
            if claimed is None:
                return
            if self.instruction.watched:
                if claimed.state is not None:
                    self.suspension.claimed(claimed.state.timestamp)
                self.suspension.take_over()
            OwnStates(self.instruction.run_id, self.report).listen()
            hear_resumes()
            flow = self._load(client, claimed)
            if flow is None:
                return
            show_as(f"run {str(claimed.id)[:8]} {claimed.name}")
            self.report(FlowStarted(at=time.time()))
            self._execute(client, flow, claimed)

    def _load(self, client: SyncPrefectClient, flow_run: FlowRun) -> Flow[..., Any] | None:
        """Return the run's flow; None, with a final state set, if there is none or it must not run.

        The run's file may have changed since the event, or its parameters may not fit. Raises `FreshInterpreterNeeded`
        if the run has variables that Python or Prefect read when they are imported, which has happened in this fork.
        """
        if flow_run.deployment_id is None:
            self._refuse(client, Crashed(message="The run has no deployment, so there is no code to run."))
            return None
        try:
            deployment = client.read_deployment(flow_run.deployment_id)
        except ObjectNotFound:
            self._refuse(client, Crashed(message="The deployment of the run was deleted, so there is no code to run."))
            return None
        variables = job_variables(deployment, flow_run)
        self.report(_limits(variables))
        problem = None if self.instruction.claimed else file_problem(client, self._id, variables.get("sluice_file"))
        if problem:
            self._refuse(client, Failed(message=problem))
            return None
        given = given_environment(variables)
        if not self.instruction.claimed and any(name.startswith(_READ_AT_IMPORT) for name in given):
            raise FreshInterpreterNeeded(self.instruction, {**self.environment, **given})
        replace_environment(
            {
                **self.environment,
                **_file_variables(variables, self.environment),
                **given,
                "PREFECT__FLOW_RUN_ID": str(self._id),
                "PREFECT__DEPLOYMENT_NAME": deployment.name,
                "PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS": "false",
            }
        )
        tracing.set_up(os.environ, role="executor")
        leave_checkout(self.shelf)
        pose_as_engine()
        try:
            flow = load_flow(flow_run, deployment, working_dir=variables.get("working_dir"))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the user's module raises while it is imported
            flow_run_logger(flow_run).error("The flow could not be loaded", exc_info=True)
            where = describe_failure(error)
            self._refuse(client, Crashed(message=f"The flow {deployment.entrypoint} cannot be loaded: {where}"))
            return None
        problem = parameter_problem(flow, flow_run.parameters)
        if problem:
            self._refuse(client, Failed(message=f"Not started: {problem}"))
            return None
        return flow

    def _refuse(self, client: SyncPrefectClient, state: State[Any]) -> None:
        state.message = visible(state.message or "")
        with contextlib.suppress(Abort, Pause):
            propose_state_sync(client, state, flow_run_id=self._id)
        self.report(RunRefused(state.message))

    def _execute(self, client: SyncPrefectClient, flow: Flow[..., Any], flow_run: FlowRun) -> None:
        """Run the flow with Prefect's engine, and set a final state if the engine ended without one."""
        logger = flow_run_logger(flow_run)
        try:
            _drive(run_flow(flow, flow_run=flow_run, error_logger=cast(logging.Logger, logger)))
        except (Abort, Pause) as end:
            # Else a subflow ended this way: the engine has set no final state of this run.
            if not was_left(end, self._id) and not _is_settled(client, self._id):
                self._refuse(client, Failed(message=f"A flow run of this process ended early: {end}"))
        except TerminationSignal:
            pass
        except Exception as error:  # a failure of the flow, which the engine has reported, or of the engine
            if not _is_settled(client, self._id):
                logger.exception("The flow run ended with an exception that is not the flow's")
                why = f"The flow {flow.name!r} could not be run: {describe_failure(error)}"
                self._refuse(client, Crashed(message=why))


def is_unreachable(error: BaseException) -> bool:
    """Whether Prefect did not respond or reported a failure of its own, so that the same request may succeed later."""
    if isinstance(error, PrefectHTTPStatusError):
        return error.response.is_server_error or error.response.status_code in _LATER
    return isinstance(error, httpx.TransportError)


def finish(code: int) -> NoReturn:
    """End this process as the interpreter does: wait for threads, run exit handlers (logs, events), flush."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - as `multiprocessing` ends its children
        atexit._run_exitfuncs()  # noqa: SLF001 - likewise
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code)


def listen_for_orders(descriptor: int, report: Report, suspension: Suspension) -> None:
    """Read from the slot that the run was suspended, or what the SIGTERM that follows means."""

    def listen() -> None:
        lines = PipeLines(descriptor)
        while not lines.ended:
            for message in lines.read():
                if isinstance(message, SuspendRun):
                    suspension.ask(message.state_id, message.occurred)
                elif isinstance(message, TakeIntent):
                    set_intent(message.intent)
                    report(message)
                    return

    threading.Thread(target=listen, name="sluice-orders", daemon=True).start()


def _limits(variables: Mapping[str, Any]) -> RunLimits:
    memory, seconds = variables.get("sluice_memory_mb"), variables.get("sluice_time_seconds")
    return RunLimits(
        memory_mb=float(memory) if memory else None,
        seconds=float(seconds) if seconds else None,
        restarts=variables.get("sluice_on_lost") == "restart",
    )


def _file_variables(variables: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that `sluice.open_file` reads: folders of project and deployment, announced version."""
    folders = [*json.loads(environment.get(FOLDERS_VARIABLE, "[]")), *variables.get("sluice_folders", ())]
    found = {FOLDERS_VARIABLE: json.dumps(folders)}
    if variables.get("sluice_file") is not None:
        found[FILE_VARIABLE] = json.dumps(variables["sluice_file"])
    return found


def _is_settled(client: SyncPrefectClient, run_id: UUID) -> bool:
    state = client.read_flow_run(run_id).state
    return state is not None and not (
        state.is_running() or state.is_pending() or state.is_cancelling() or waits_in_process(state)
    )


def _drive(result: Any) -> None:
    """Run the coroutines and generators that the engine leaves to its caller, as ``prefect.engine`` does."""
    if inspect.isasyncgen(result):

        async def consume() -> None:
            async for _ in result:
                pass

        asyncio.run(consume())
    elif inspect.isgenerator(result):
        for _ in result:
            pass
    elif asyncio.iscoroutine(result):
        asyncio.run(result)
