"""The earlier runs that a subflow run replaces: when a flow is retried, Prefect begins its subflows as new runs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterParentTaskRunId,
    TaskRunFilter,
    TaskRunFilterFlowRunId,
)
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort

_MOST: Final = 200
"""Prefect's own limit on one answer."""


async def forerunners(client: PrefectClient, run: FlowRun) -> list[UUID]:
    """Return the earlier runs of the same call of the same subflow, with the same parameters, the newest first.

    A call is identified by its position among the calls of the calling flow, as in Prefect. A subflow that a task calls
    has no such position, and one that runs from a deployment continues without its parent: they have no forerunners.
    """
    call = run.parent_task_run_id
    if call is None or run.deployment_id is not None:
        return []
    found = await client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            parent_task_run_id=FlowRunFilterParentTaskRunId(any_=[call, *await _same_calls(client, call)])
        ),
        sort=FlowRunSort.ID_DESC,
        limit=_MOST,
    )
    same = [one for one in found if (one.flow_id, one.parameters) == (run.flow_id, run.parameters)]
    earlier = [one for one in same if one.id != run.id and _created(one) <= _created(run)]
    return [one.id for one in sorted(earlier, key=_created, reverse=True)]


async def _same_calls(client: PrefectClient, call: UUID) -> list[UUID]:
    """Return the same call in the runs that the calling run replaces, if that is a subflow run itself."""
    made = await client.read_task_run(call)
    if made.flow_run_id is None:
        return []
    callers = await forerunners(client, await client.read_flow_run(made.flow_run_id))
    if not callers:
        return []
    calls = await client.read_task_runs(
        task_run_filter=TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=callers)), limit=_MOST
    )
    return [one.id for one in calls if (one.task_key, one.dynamic_key) == (made.task_key, made.dynamic_key)]


def _created(run: FlowRun) -> datetime:
    return run.created or datetime.min.replace(tzinfo=UTC)
