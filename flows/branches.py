"""Branches by type and by content: what a thing is decides which tasks see it.

Needs nothing. A branch of a flow is an ``if`` or a ``match`` of Python: Prefect's graph shows the tasks that ran.
"""

from __future__ import annotations

import json
from typing import Any

from prefect import State, flow, task
from prefect.states import Completed, Failed

from sluice import run_name, visible

LARGE_AMOUNT = 10_000


@task
def parse(content: str, kind: str) -> list[dict[str, Any]]:
    """The records of a document; `ValueError` for a kind that nobody reads."""
    match kind:  # by type
        case "json":
            found = json.loads(content)
            return found if isinstance(found, list) else [found]
        case "csv":
            header, *rows = content.splitlines()
            return [dict(zip(header.split(","), row.split(","), strict=True)) for row in rows]
        case _:
            raise ValueError(f"{kind!r} is not read here: send json or csv")


@task
def book(order: dict[str, Any]) -> str:
    """The usual way."""
    return f"{order['id']} booked"


@task
def ask(order: dict[str, Any]) -> str:
    """A large order is looked at by a person first; `order_approval.py` shows how a run waits for one."""
    return f"{order['id']} to be approved"


@task
def refund(order: dict[str, Any]) -> str:
    """Less than nothing is a return."""
    return f"{order['id']} refunded"


@flow(name="branches", flow_run_name=run_name("branches of a {kind} document"))
def branches(content: str = '[{"id": 1, "amount": 5}, {"id": 2, "amount": 50000}]', kind: str = "json") -> State[Any]:
    """Read orders (``id``, ``amount``) from a JSON or CSV document, and handle each by its amount.

    Needs nothing. An order without an amount fails the run after the others are handled.
    """
    done, bad = [], []
    for order in parse(content, kind):
        match order:  # by content
            case {"id": _, "amount": amount} if float(amount) < 0:
                done.append(refund(order))
            case {"id": _, "amount": amount} if float(amount) >= LARGE_AMOUNT:
                done.append(ask(order))
            case {"id": _, "amount": _}:
                done.append(book(order))
            case _:
                bad.append(order)
    if bad:
        return Failed(message=visible(f"{len(bad)} orders have no id or no amount, the first one: {bad[0]}", 500))
    return Completed(message=visible("; ".join(done), 500), data=done)


if __name__ == "__main__":
    branches()
