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
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol, cast
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import SyncClientContext
from prefect.exceptions import Abort, ObjectNotFound, Pause, PrefectHTTPStatusError, TerminationSignal
from prefect.flow_engine import run_flow
from prefect.logging.loggers import flow_run_logger
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.states import Crashed, Failed, Pending
from prefect.utilities.engine import propose_state_sync

from events.errors import RejectedEvent
from services.common.file_version import verify_version
from services.executor.process.claim import Claim, ClaimLater, Decision, Gone, decide, is_retrying
from services.executor.process.flow_loading import describe_failure, load_flow
from services.executor.process.own_states import OwnStates, waits_in_process, was_left
from services.executor.process.parameter_check import parameter_problem
from services.executor.process.process_setup import leave_checkout, pose_as_engine, replace_environment
from services.executor.process.server_options_cache import ServerOptionsCache, want_token
from services.executor.process.suspension import Suspension
from services.prefect_api.compat import set_intent
from services.prefect_api.run_calls import CLAIMED
from sluice.display import visible
from sluice.protocol import FILE_VARIABLE, FOLDERS_VARIABLE

Report = Callable[..., None]

_HEARTBEAT: Final = ("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "PREFECT_RUNNER_HEARTBEAT_FREQUENCY")
_READ_AT_IMPORT: Final = ("PREFECT_", "PYTHON")
"""Prefixes of variables that take effect when an interpreter starts or Prefect is imported, so not in a fork."""
_AT_RUN_TIME: Final = ("anyio._backends._asyncio", "pydantic.v1", "rich._emoji_codes", "sluice")
"""Modules that a run imports besides the flow and the engine."""
_FORBIDDEN: Final = 403


COMMIT_SECONDS: Final = 3.0
"""After this time a queued state has been committed, or never will be."""
_COMMIT_SECONDS: Final = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Pauses before each reading of a run whose state may not be committed yet."""

_HELD_SHORTEST: Final = timedelta(seconds=0.3)
_HELD_LONGEST: Final = timedelta(seconds=10)
"""Pause before a run is read again whose last process has not ended: the first, and the longest."""


@dataclass(frozen=True, slots=True)
class Queued:
    """The scheduled state for which a run was put on the queue, and when (seconds since the epoch)."""

    state_id: str
    at: float
    free: bool = True
    """Whether only this process has the run: else an earlier process of the run has not ended yet."""


class Restart(Protocol):
    """Replaces this process by a fresh interpreter that executes the run, which is claimed already."""

    def __call__(self, environment: Mapping[str, str], /) -> None:
        """Do not return where a fresh interpreter can be started; else return at once."""


class Prepared:
    """Client and settings for a run, made in the fork server and inherited by the fork.

    Neither of them has opened a connection or file.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        # Heartbeats from within the process cost a second at its end; the slot sends them unless Prefect's are wanted.
        if not any(name in environment for name in _HEARTBEAT):
            settings = temporary_settings(updates={PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
            settings.__enter__()  # until the process ends
        self.client = SyncClientContext()
        for name in _AT_RUN_TIME:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)


class FlowRunProcess:
    """One run in this process; ``report`` sends a ``step`` with its details to the slot."""

    def __init__(
        self,
        *,
        run_id: str,
        claimed_by: str,
        report: Report,
        environment: Mapping[str, str],
        shelf: Path,
        prepared: Prepared | None = None,
        restart: Restart | None = None,
        claimed: bool = False,
        suspension: Suspension | None = None,
        remembered: ServerOptionsCache | None = None,
        queued: Queued | None = None,
    ) -> None:
        self._id = UUID(run_id)
        self._claimed_by = claimed_by
        self._report = report
        self._environment = environment
        self._shelf = shelf
        self._prepared = prepared or Prepared(environment)
        self._restart = restart
        self._claimed = claimed
        self._suspension = suspension
        self._remembered = remembered
        self._queued = queued
        self._token_spared = False

    def run(self) -> int:
        """Execute the run; return the exit code, 0 when Prefect has its final state or refused the claim."""
        with self._prepared.client as context:
            client = context.client
            if self._remembered is not None:
                self._token_spared = self._remembered.spare_token(client)
                self._remembered.spare_storage()
            claimed = client.read_flow_run(self._id) if self._claimed else self._claim(client)
            if claimed is None:
                return 0
            if self._suspension is not None:
                if claimed.state is not None:
                    self._suspension.claimed(claimed.state.timestamp)
                self._suspension.take_over()
            OwnStates(str(self._id), self._report).listen()
            loaded = self._load(client, claimed)
            if loaded is None:
                return 0
            flow, flow_run = loaded
            self._report(step="started", at=time.time())
            return self._execute(client, flow, flow_run)

    def _claim(self, client: SyncPrefectClient) -> FlowRun | None:
        flow_run, decision = self._look(client)
        for pause_seconds in _COMMIT_SECONDS:
            if isinstance(decision, Claim) or not self._is_ahead(client, flow_run):
                break
            time.sleep(pause_seconds)
            flow_run, decision = self._look(client)
        if flow_run is None:
            self._report(step="gone", why="the run was deleted")
            return None
        match decision:
            case Gone(why):
                self._report(step="gone", why=why)
                return None
            case ClaimLater(until):
                self._report(step="early", until=until.timestamp())
                return None
        try:
            state = self._propose_pending(client)
        except (Abort, Pause) as refusal:
            self._report(step="gone", why=f"Prefect refuses it: {refusal}")
            return None
        if not state.is_pending():
            self._report(step="gone", why=f"Prefect answers {state.name}: {state.message or 'without a reason'}")
            return None
        self._report(step="claimed", at=time.time(), since=state.timestamp.isoformat())
        flow_run.state = state
        flow_run.state_type, flow_run.state_name = state.type, state.name
        return flow_run

    def _look(self, client: SyncPrefectClient) -> tuple[FlowRun | None, Decision]:
        try:
            flow_run = client.read_flow_run(self._id)
        except ObjectNotFound:
            return None, Gone("the run was deleted")
        state = flow_run.state
        now = datetime.now(UTC)
        decision = decide(
            state_type=state.type.value if state is not None else None,
            retrying=is_retrying(
                state_name=state.name if state is not None else None, retry_type=flow_run.empirical_policy.retry_type
            ),
            scheduled=state.state_details.scheduled_time if state is not None else None,
            now=now,
        )
        if state is not None and isinstance(decision, Claim) and self._queued is not None and not self._queued.free:
            since_it_is_due = (now - state.timestamp) / 2
            return flow_run, ClaimLater(now + min(max(since_it_is_due, _HELD_SHORTEST), _HELD_LONGEST))
        return flow_run, decision

    def _is_ahead(self, client: SyncPrefectClient, flow_run: FlowRun | None) -> bool:
        """Whether the state that was queued is younger than what Prefect shows.

        Prefect publishes a state before its transaction is committed: until then the run does not exist, or is in the
        former state. A state in the run's state history has been committed, and the run has left it since.
        """
        if self._queued is None or time.time() - self._queued.at > COMMIT_SECONDS:
            return False
        if flow_run is None:
            return True
        past = client.read_flow_run_states(self._id)
        return self._queued.state_id not in {str(state.id) for state in past}

    def _propose_pending(self, client: SyncPrefectClient) -> State[Any]:
        pending: State[Any] = Pending(message=f"{CLAIMED}{self._claimed_by}")
        try:
            return propose_state_sync(client, pending, flow_run_id=self._id)
        except PrefectHTTPStatusError as error:
            if not self._token_spared or error.response.status_code != _FORBIDDEN:
                raise
        want_token(client)  # the server has begun to require tokens since it was asked
        return propose_state_sync(client, pending, flow_run_id=self._id)

    def _load(self, client: SyncPrefectClient, flow_run: FlowRun) -> tuple[Flow[..., Any], FlowRun] | None:
        if flow_run.deployment_id is None:
            self._refuse(client, Crashed(message="The run has no deployment, so there is no code to run."))
            return None
        try:
            deployment = client.read_deployment(flow_run.deployment_id)
        except ObjectNotFound:
            self._refuse(client, Crashed(message="The deployment of the run was deleted, so there is no code to run."))
            return None
        variables = {**(deployment.job_variables or {}), **(flow_run.job_variables or {})}
        self._report(step="limits", **_limits(variables))
        problem = self._file_problem(variables.get("sluice_file"))
        if problem:
            self._refuse(client, Failed(message=problem))
            return None
        given = {str(name): str(value) for name, value in (variables.get("env") or {}).items()}
        if self._restart is not None and any(name.startswith(_READ_AT_IMPORT) for name in given):
            self._restart({**self._environment, **given})
        replace_environment(
            {
                **self._environment,
                **_file_variables(variables, self._environment),
                **given,
                "PREFECT__FLOW_RUN_ID": str(self._id),
                "PREFECT__DEPLOYMENT_NAME": deployment.name,
                "PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS": "false",
            }
        )
        leave_checkout(self._shelf)
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
        return flow, flow_run

    def _file_problem(self, file: Any) -> str | None:
        if file is None or self._claimed:
            return None
        try:
            verify_version(str(file.get("path")), str(file.get("version")))
        except RejectedEvent as error:
            return f"Not started: {error.reason}."
        return None

    def _refuse(self, client: SyncPrefectClient, state: State[Any]) -> None:
        state.message = visible(state.message or "")
        with contextlib.suppress(Abort, Pause):
            propose_state_sync(client, state, flow_run_id=self._id)
        self._report(step="refused", why=state.message)

    def _execute(self, client: SyncPrefectClient, flow: Flow[..., Any], flow_run: FlowRun) -> int:
        logger = flow_run_logger(flow_run)
        try:
            _drive(run_flow(flow, flow_run=flow_run, error_logger=cast(logging.Logger, logger)))
        except (Abort, Pause) as end:
            # Else a subflow ended this way: the engine has set no final state of this run.
            if not was_left(end, self._id) and not _is_settled(client, self._id):
                self._refuse(client, Failed(message=f"A flow run of this process ended early: {end}"))
            return 0
        except TerminationSignal:
            return 0
        except Exception as error:  # a failure of the flow, which the engine has reported, or of the engine
            if _is_settled(client, self._id):
                return 0
            logger.exception("The flow run ended with an exception that is not the flow's")
            self._refuse(client, Crashed(message=f"The flow {flow.name!r} could not be run: {describe_failure(error)}"))
        return 0


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


def listen_for_intent(descriptor: int, report: Report, suspension: Suspension) -> None:
    """Read from the slot the meaning of the SIGTERM that follows: a line, ``cancel`` or ``reschedule``.

    A line ``suspend STATE-ID MOMENT`` comes without a SIGTERM.
    """

    def listen() -> None:
        with os.fdopen(descriptor, "rb") as source:
            for line in source:
                word, *rest = line.decode().split()
                if word == "suspend":
                    suspension.ask(*rest)
                    continue
                set_intent(word)
                report(step="intent", intent=word)
                break

    threading.Thread(target=listen, name="sluice-intent", daemon=True).start()


def _limits(variables: Mapping[str, Any]) -> dict[str, float]:
    limits = {"memory_mb": variables.get("sluice_memory_mb"), "seconds": variables.get("sluice_time_seconds")}
    return {name: float(value) for name, value in limits.items() if value}


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
