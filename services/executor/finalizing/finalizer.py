"""Finalizes a run whose process has ended: sets the state that it did not report, and runs the hooks of that state.

Runs in a process of its own, because hooks are the user's code. Every step may be repeated: a step that was done is
recognised, so an interrupted finalizer is started again from the beginning.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ObjectNotFound
from prefect.logging.loggers import flow_run_logger
from prefect.states import AwaitingRetry, Cancelling, Failed
from prefect.utilities.engine import propose_state

from services.common.project_imports import leave_checkout
from services.executor.finalizing.open_pauses import heal_kept, keep_waiting, policy_for_a_new_start
from services.executor.finalizing.subflows import end_subflows, open_pauses_again
from services.executor.messages import FinalizeRun
from services.executor.process.flow_loading import given_environment, job_variables, load_flow
from services.executor.process.own_states import waits_in_process
from services.executor.process.process_setup import pose_as_engine, replace_environment
from services.executor.process_exits import EndReason
from services.prefect_api.compat import finalize_cancelled_state, hook_runner, state_proposer
from services.prefect_api.runs import is_retrying
from sluice.display import visible


class UnsettledError(RuntimeError):
    """Prefect still shows the run in a state that needs a process."""


class Finalizer:
    """Finalizes one run; each step is skipped if Prefect shows that it was done."""

    def __init__(self, instruction: FinalizeRun, *, environment: Mapping[str, str], shelf: Path) -> None:
        self._id = UUID(instruction.run_id)
        self._reason = instruction.end.reason
        self._message = visible(instruction.end.message)
        self._again_after = timedelta(seconds=instruction.after_seconds)
        self._environment = environment
        self._shelf = shelf

    def run(self) -> None:
        """Finalize the run.

        Raises:
            UnsettledError: The run needs a process in its present state.
            Exception: Whatever Prefect's client raises when Prefect cannot be reached.
        """
        asyncio.run(self._settle())

    async def _settle(self) -> None:
        """Settle the run and its subflows; raises `UnsettledError` if Prefect shows no change of its state."""
        async with get_client() as client:
            try:
                await self._settle_run(client, await client.read_flow_run(self._id))
                flow_run = await client.read_flow_run(self._id)
            except ObjectNotFound:
                return
            if _needs_process(flow_run):
                msg = f"the run is {flow_run.state_name} still"
                raise UnsettledError(msg)
            if flow_run.state is not None and flow_run.state.is_final():
                await end_subflows(client, flow_run)

    async def _settle_run(self, client: PrefectClient, flow_run: FlowRun) -> None:
        """Set the state that the run's process did not report, by the reason for its end.

        A run that has reached a final or waiting state by itself keeps it.
        """
        state = flow_run.state
        if state is None:
            return
        reason = EndReason.CANCELLED if state.is_cancelling() else self._reason
        if not _needs_process(flow_run) and not (reason is EndReason.CANCELLED and state.is_crashed()):
            if reason in {EndReason.HANDED_BACK, EndReason.RESTORED} and state.is_paused():
                await heal_kept(client, flow_run)
            return
        flow_run_logger(flow_run).error(self._message)
        match reason:
            case EndReason.CANCELLED:
                await self._cancel(client, flow_run)
            case EndReason.HANDED_BACK | EndReason.RESTORED if waits_in_process(state):
                await keep_waiting(client, flow_run)
            case EndReason.HANDED_BACK:
                await self._hand_back(client, flow_run)
            case EndReason.TIMED_OUT:
                await self._time_out(client)
            case EndReason.LOST | EndReason.RESTORED if await self._restarts(client, flow_run):
                await self._hand_back(client, flow_run)
            case _:
                await self._crash(client, flow_run)

    async def _crash(self, client: PrefectClient, flow_run: FlowRun) -> None:
        crashed = await state_proposer(client).propose_crashed(flow_run, self._message)
        if crashed is not None and crashed.is_crashed():
            await self._hooks(client).run_crashed_hooks(flow_run, crashed)

    async def _cancel(self, client: PrefectClient, flow_run: FlowRun) -> None:
        await self._hooks(client).run_cancellation_hooks(flow_run, Cancelling(message=self._message))
        await finalize_cancelled_state(client, flow_run, message=self._message)

    async def _time_out(self, client: PrefectClient) -> None:
        proposed: State[Any] = Failed(name="TimedOut", message=self._message)
        state = await propose_state(client, proposed, flow_run_id=self._id)
        if state.is_scheduled():  # the flow has retries: its next attempt must not wait for the process that has ended
            await self._hand_back(client, await client.read_flow_run(self._id))

    async def _hand_back(self, client: PrefectClient, flow_run: FlowRun) -> None:
        await open_pauses_again(client, flow_run)
        policy = policy_for_a_new_start(flow_run)
        if policy != flow_run.empirical_policy:
            await client.update_flow_run(self._id, empirical_policy=policy)
        scheduled = flow_run.state.state_details.scheduled_time if flow_run.state is not None else None
        moment = scheduled or datetime.now(UTC) + self._again_after
        again: State[Any] = AwaitingRetry(message=self._message, scheduled_time=moment)
        await client.set_flow_run_state(self._id, again, force=True)

    async def _restarts(self, client: PrefectClient, flow_run: FlowRun) -> bool:
        if flow_run.deployment_id is None:
            return False
        deployment = await client.read_deployment(flow_run.deployment_id)
        return job_variables(deployment, flow_run).get("sluice_on_lost") == "restart"

    def _hooks(self, client: PrefectClient) -> Any:
        """Return what runs the hooks of the flow, which it loads first, as the run's own process would have."""

        async def resolve(flow_run: FlowRun) -> Flow[..., Any]:
            if flow_run.deployment_id is None:
                msg = "the run has no deployment to load its flow from"
                raise ValueError(msg)
            deployment = await client.read_deployment(flow_run.deployment_id)
            variables = job_variables(deployment, flow_run)
            given = given_environment(variables)
            replace_environment({**self._environment, **given, "PREFECT__FLOW_RUN_ID": str(self._id)})
            leave_checkout(self._shelf)
            pose_as_engine()
            return await asyncio.to_thread(load_flow, flow_run, deployment, working_dir=variables.get("working_dir"))

        return hook_runner(resolve)


def _needs_process(flow_run: FlowRun) -> bool:
    """Whether a run in this state needs a process."""
    state = flow_run.state
    if state is None or state.is_final():
        return False
    if state.is_paused():
        return waits_in_process(state)
    if state.is_scheduled():
        return is_retrying(flow_run.state_name, flow_run.empirical_policy.retry_type)
    return True
