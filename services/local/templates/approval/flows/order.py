"""An order waits for somebody's decision."""

import json

from prefect import State, flow
from prefect.states import Completed, Failed
from pydantic import BaseModel

from sluice import SignalRejected, SignalTimeout, open_file, wait_for_signal

WITHIN_SECONDS = 86_400


class OrderDecision(BaseModel):
    """What is answered; Prefect's page of the run shows it as a form."""

    approved: bool
    by: str = ""


@flow(name="order")
def order(path: str) -> State:
    """Read an order such as {"order_id": 1042, "amount": 129.5}, wait for its approval, and say what was decided."""
    with open_file(path) as file:
        found = json.load(file)
    name = f"order {found['order_id']} over {found['amount']:.2f}"
    try:
        decision = wait_for_signal(key=f"order-{found['order_id']}", input=OrderDecision, timeout=WITHIN_SECONDS)
    except SignalTimeout:
        return Failed(message=f"{name}: nobody decided within {WITHIN_SECONDS} s")
    except SignalRejected as rejection:
        return Completed(name="Rejected", message=f"{name}: {rejection}")
    who = decision.by or "somebody"
    if not decision.approved:
        return Completed(name="Rejected", message=f"{name} was refused by {who}")
    return Completed(message=f"{name} was approved by {who}")
