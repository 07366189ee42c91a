"""Claims a flow run for this process: reads it until its queued state is committed, decides, and sets it to Pending."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import Abort, ObjectNotFound, Pause, PrefectHTTPStatusError
from prefect.states import Pending
from prefect.utilities.engine import propose_state_sync

from services.executor.messages import ExecuteRun, NotClaimed, ProcessMessage, RunClaimed
from services.executor.process.server_options_cache import ServerOptionsCache
from services.prefect_api.run_calls import CLAIMED
from services.prefect_api.runs import COMMIT_PAUSES, COMMIT_SECONDS, is_retrying

EARLY: Final = timedelta(milliseconds=100)
"""A run may be claimed this much before it is due; loading its flow takes longer."""

_HELD_SHORTEST: Final = timedelta(seconds=0.3)
_HELD_LONGEST: Final = timedelta(seconds=10)
"""Pause before a run is read again whose last process has not ended: the first, and the longest."""
_FORBIDDEN: Final = 403


def refusal(
    *, state_type: str | None, state_name: str | None, retry_type: str | None, scheduled: datetime | None, now: datetime
) -> NotClaimed | None:
    """Return why a run in this state, ``scheduled`` for a time, must not be claimed; None if it may be."""
    if state_type != "SCHEDULED":
        return NotClaimed(f"the run is {state_type or 'without a state'} already")
    if is_retrying(state_name, retry_type):
        return NotClaimed("the run's own process is about to try again")
    if scheduled is not None and scheduled - now > EARLY:
        return NotClaimed("the run is not due", until=scheduled.timestamp())
    return None


class RunClaim:
    """The claim of one run, by a process that was started to execute it."""

    def __init__(
        self, instruction: ExecuteRun, options: ServerOptionsCache, report: Callable[[ProcessMessage], None]
    ) -> None:
        self._id = UUID(instruction.run_id)
        self._queued = instruction.queued
        self._claimed_by = f"{instruction.instance}, process {os.getpid()}"
        self._options = options
        self._report = report

    def take(self, client: SyncPrefectClient) -> FlowRun | None:
        """Claim the run; None, after a report, if it is not for this process. Raises what Prefect's client raises."""
        flow_run, refused = self._read(client)
        for pause_seconds in COMMIT_PAUSES:
            if refused is None or not self._is_ahead(client, flow_run):
                break
            time.sleep(pause_seconds)
            flow_run, refused = self._read(client)
        if flow_run is None or refused is not None:
            self._report(refused or NotClaimed("the run was deleted"))
            return None
        try:
            state = self._propose_pending(client)
        except (Abort, Pause) as error:
            self._report(NotClaimed(f"Prefect refuses it: {error}"))
            return None
        if not state.is_pending():
            self._report(NotClaimed(f"Prefect answers {state.name}: {state.message or 'without a reason'}"))
            return None
        self._report(RunClaimed(at=time.time(), since=state.timestamp))
        flow_run.state = state
        flow_run.state_type, flow_run.state_name = state.type, state.name
        return flow_run

    def _read(self, client: SyncPrefectClient) -> tuple[FlowRun | None, NotClaimed | None]:
        """Return the run, and why it must not be claimed, if so.

        If an earlier process of the run has not ended, the refusal has a time at which to try again: after half of the
        time for which the run has been due, but at least 0.3 and at most 10 s.
        """
        try:
            flow_run = client.read_flow_run(self._id)
        except ObjectNotFound:
            return None, NotClaimed("the run was deleted")
        state = flow_run.state
        now = datetime.now(UTC)
        refused = refusal(
            state_type=state.type.value if state is not None else None,
            state_name=state.name if state is not None else None,
            retry_type=flow_run.empirical_policy.retry_type,
            scheduled=state.state_details.scheduled_time if state is not None else None,
            now=now,
        )
        if state is not None and refused is None and self._queued is not None and not self._queued.free:
            since_it_is_due = (now - state.timestamp) / 2
            until = now + min(max(since_it_is_due, _HELD_SHORTEST), _HELD_LONGEST)
            refused = NotClaimed("an earlier process of the run has not ended", until=until.timestamp())
        return flow_run, refused

    def _is_ahead(self, client: SyncPrefectClient, flow_run: FlowRun | None) -> bool:
        """Whether the state that was queued is younger than what Prefect shows.

        A state in the run's state history has been committed, and the run has left it since.
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
            if error.response.status_code != _FORBIDDEN or not self._options.want_token(client):
                raise
        return propose_state_sync(client, pending, flow_run_id=self._id)
