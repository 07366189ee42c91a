"""Reads once, in a process of its own, the state of a run whose role's process has ended."""

from __future__ import annotations

from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

from services.executor.pipes import Message
from services.executor.process.claim import is_retrying
from services.executor.run_orders import order_for
from services.prefect_api.run_calls import Stopped


def observe(run_id: str) -> Message | None:
    """Return the order to the run's slot, None if the run goes on. Raises what Prefect's client raises."""
    with get_client(sync_client=True) as client:
        try:
            flow_run = client.read_flow_run(UUID(run_id))
        except ObjectNotFound:
            return order_for(Stopped(run_id, None, None, "DELETED", "Deleted"))
    state = flow_run.state
    if state is None or is_retrying(state_name=state.name, retry_type=flow_run.empirical_policy.retry_type):
        return None
    return order_for(Stopped(run_id, str(state.id), state.timestamp, state.type.value, state.name or ""))
