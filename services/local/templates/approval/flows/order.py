"""An order waits for somebody's decision."""

import json

from prefect import State, flow
from prefect.states import Cancelled, Completed, Failed
from pydantic import BaseModel

from sluice import SignalRejected, SignalTimeout, in_markdown, open_file, run_name, wait_for_signal

WITHIN_SECONDS = 86_400


class OrderDecision(BaseModel):
    """What is answered; Prefect's page of the run shows it as a form."""

    approved: bool
    by: str = ""


@flow(name="order", flow_run_name=run_name("order in {path}"))
def order(path: str) -> State:
    """Read an order such as {"order_id": 1042, "amount": 129.5}, wait for its approval, and say what was decided."""
    with open_file(path) as file:
        found = json.load(file)
    name = f"order {found['order_id']} over {found['amount']:.2f}"
    try:
        decision = wait_for_signal(
            key=f"order-{found['order_id']}",
            input=OrderDecision,
            timeout=WITHIN_SECONDS,
            description=f"### Approve {in_markdown(name)}?\n\nIt came in the file {in_markdown(path)}.",
        )
    except SignalTimeout:
        return Failed(message=f"{name}: nobody decided within {WITHIN_SECONDS} s")
    except SignalRejected as rejection:
        return Cancelled(message=f"{name}: {rejection}")
    who = decision.by or "somebody"
    if not decision.approved:
        return Cancelled(message=f"{name} was refused by {who}")
    return Completed(message=f"{name} was approved by {who}")
