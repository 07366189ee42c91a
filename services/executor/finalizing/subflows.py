"""The subflow runs that went with their parent's process: they have no process of their own to report their end."""

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
    """Give the unfinished subflow runs of a run that is over the end that its process can no longer report."""
    cancelled = parent.state is not None and parent.state.is_cancelled()
    for child in await _unfinished(client, parent):
        message = f"Its parent run {parent.name!r} ended as {parent.state_name}, and its process with it."
        ended: State[Any] = Cancelled(message=message) if cancelled else Crashed(message=message)
        await client.set_flow_run_state(child.id, ended, force=True)
        await end_subflows(client, child)


async def open_pauses_again(client: PrefectClient, parent: FlowRun) -> None:
    """Have the subflow runs of a run that starts again come to their open pauses again, too."""
    for child in await _unfinished(client, parent):
        policy = policy_for_a_new_start(child)
        if policy != child.empirical_policy:
            await client.update_flow_run(child.id, empirical_policy=policy)
        await open_pauses_again(client, child)


async def _unfinished(client: PrefectClient, parent: FlowRun) -> list[FlowRun]:
    """The runs of the parent's process; those of deployments that it called have a process of their own."""
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
