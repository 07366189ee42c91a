"""The orders to a slot that follow from a run's state in Prefect."""

from __future__ import annotations

from services.executor.pipes import Message
from services.prefect_api.run_calls import SUSPENDED, Stopped


def order_for(stopped: Stopped) -> Message | None:
    """Return the order to the run's slot; None where its process is to go on."""
    occurred = stopped.occurred.isoformat() if stopped.occurred is not None else None
    of = {"run": stopped.run_id, "state": stopped.state_id, "occurred": occurred}
    match stopped.state_type:
        case "CANCELLING":
            return {"do": "cancel", **of}
        case "PAUSED":
            return {"do": "suspend", **of} if stopped.state_name == SUSPENDED else None
        case "RUNNING" | "PENDING":
            return None
        case _:
            intent = "reschedule" if stopped.state_type == "SCHEDULED" else "cancel"
            return {"do": "overtaken", **of, "why": _why(stopped), "intent": intent}


def _why(stopped: Stopped) -> str:
    if stopped.state_id is None:
        return "The run was deleted while it was being executed; its process was stopped."
    if stopped.state_type == "SCHEDULED":
        return (
            f"The run was scheduled anew ({stopped.state_name}) while it was being executed; its process was stopped."
        )
    return f"The run was set to {stopped.state_name} from outside while it was being executed; its process was stopped."
