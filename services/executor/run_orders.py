"""The orders to a slot that follow from its run's state in Prefect."""

from __future__ import annotations

from services.executor.messages import CancelRun, Intent, Order, RunOvertaken, SuspendRun
from services.prefect_api.client import connect
from services.prefect_api.run_calls import SUSPENDED, stopped
from services.prefect_api.runs import StateChange


def order_for(change: StateChange) -> Order | None:
    """Return the order to the run's slot; None where its process is to go on."""
    match change.state_type:
        case "CANCELLING":
            return CancelRun(change.run_id)
        case "PAUSED" if change.state_name == SUSPENDED and change.state_id is not None:
            return SuspendRun(change.run_id, change.state_id, change.occurred)
        case "PAUSED" | "RUNNING" | "PENDING":
            return None
        case _:
            intent: Intent = "reschedule" if change.state_type == "SCHEDULED" else "cancel"
            return RunOvertaken(change.run_id, change.state_id, change.occurred, _why(change), intent)


async def read_order(run_id: str) -> Order | None:
    """Read the run's state and return the order that follows. Raises what `PrefectApi.request` raises."""
    async with connect() as api:
        for change in await stopped(api, [run_id]):
            return order_for(change)
    return None


def _why(change: StateChange) -> str:
    if change.state_id is None:
        return "The run was deleted while it was being executed; its process was stopped."
    if change.state_type == "SCHEDULED":
        return f"The run was scheduled anew ({change.state_name}) while it was being executed; its process was stopped."
    return f"The run was set to {change.state_name} from outside while it was being executed; its process was stopped."
