"""Ends the subflow runs of a parent whose process has ended: they have no process of their own to report their end."""

from __future__ import annotations

from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Cancelled, Crashed

from services.executor.finalizing.open_pauses import policy_for_a_new_start

_PAGE = 200


async def end_subflows(client: PrefectClient, parent: FlowRun) -> None:
    """Set the active subflow runs of a run that has ended to the final state that its process did not report."""
    cancelled = parent.state is not None and parent.state.is_cancelled()
    for child in await _unfinished(client, parent):
        message = f"Its parent run {parent.name!r} ended as {parent.state_name}, and its process with it."
        ended: State[Any] = Cancelled(message=message) if cancelled else Crashed(message=message)
        await client.set_flow_run_state(child.id, ended, force=True)
        await end_subflows(client, child)


async def open_pauses_again(client: PrefectClient, parent: FlowRun) -> None:
    """Let the subflow runs of a run that starts again enter their unanswered pauses again."""
    for child in await _unfinished(client, parent):
        policy = policy_for_a_new_start(child)
        if policy != child.empirical_policy:
            await client.update_flow_run(child.id, empirical_policy=policy)
        await open_pauses_again(client, child)


async def _unfinished(client: PrefectClient, parent: FlowRun) -> list[FlowRun]:
    """Return the active subflow runs in the parent's process; runs of deployments have a process of their own."""
    children = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[parent.id]))
    found: list[FlowRun] = []
    sort = FlowRunSort.ID_DESC
    while page := await client.read_flow_runs(flow_run_filter=children, sort=sort, limit=_PAGE, offset=len(found)):
        found += page
        if len(page) < _PAGE:
            break
    return [
        child
        for child in found
        if child.deployment_id is None and not (child.state is not None and child.state.is_final())
    ]
