"""An order is checked and reserved, waits for somebody's approval, and is confirmed or released.

The run shows as Paused with the tag ``awaits:order-<order_id>``; a resume message with that key carries the answer.
"""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast
from uuid import UUID

import sqlalchemy as sa
from prefect import State, flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.states import Cancelled, Completed, Failed
from pydantic import BaseModel, Field

from sluice import SignalRejected, SignalTimeout, claim_table, in_markdown, run_name, visible, wait_for_signal
from tasks.retries import DATABASE

RESERVATIONS: Final = sa.Table(
    "order_reservations",
    sa.MetaData(),
    sa.Column("order_id", sa.String(200), primary_key=True),
    sa.Column("amount", sa.Double, nullable=False),
    sa.Column("status", sa.String(20), nullable=False),
    sa.Column("changed_at", sa.String(40), nullable=False),
)


class Approval(BaseModel):
    """What the approver answers; Prefect's page of the run shows it as a form."""

    approved: bool = Field(description="Whether the order may go out")
    by: str = Field(default="", description="Who decided")
    note: str = Field(default="", description="What the customer is told")


class Timeline:
    """What happened to the order, for the log and for the run's page: there from the first step, and kept current."""

    def __init__(self, order: str) -> None:
        self._order = order
        self._steps: list[dict[str, str]] = []
        self._artifact: UUID | None = None

    def add(self, step: str, detail: str = "") -> None:
        """Something happened now."""
        self._steps.append(
            {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "step": step, "detail": visible(detail)}
        )
        get_run_logger().info("order %s: %s %s", visible(self._order), step, visible(detail))

    def publish(self) -> None:
        """Show the steps so far on the run's page."""
        if self._artifact is None:
            slug = re.sub(r"[^a-z0-9]+", "-", self._order.lower()).strip("-")
            said = visible(f"Timeline of order {self._order}")
            made = create_table_artifact(self._steps, key=f"order-{slug}".strip("-"), description=said)
            self._artifact = cast("UUID", made)
            return
        with get_client(sync_client=True) as client:
            client.update_artifact(self._artifact, ArtifactUpdate(data=json.dumps(self._steps)))


@task
def validate(order_id: str, amount: float) -> None:
    """Refuse what no approval could make right."""
    if not order_id.strip() or not order_id.isprintable():
        raise ValueError(f"{order_id!r} is not an order id")
    if not 0 < amount < 1e9:  # noqa: PLR2004 - beyond this it is a mistake in a unit
        raise ValueError(f"order {order_id} has the amount {amount}: it must be above 0 and below a milliard")


@task(**DATABASE, cache_policy=NO_CACHE)
def set_status(order_id: str, amount: float, status: str) -> None:
    """Write the order's status down; doing it twice is doing it once."""
    home = Path(os.environ.get("SLUICE_HOME", ".sluice")).resolve()
    home.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(os.environ.get("SLUICE_DATABASE_URL") or f"sqlite:///{home / 'data.db'}?timeout=60")
    values = {"amount": amount, "status": status, "changed_at": datetime.now(UTC).isoformat()}
    try:
        with engine.begin() as connection:
            claim_table(connection, RESERVATIONS.name, flow="order-approval", outside=False)
            RESERVATIONS.create(connection, checkfirst=True)
            known = connection.execute(
                sa.update(RESERVATIONS).where(RESERVATIONS.c.order_id == order_id).values(values)
            )
            if known.rowcount == 0:
                connection.execute(sa.insert(RESERVATIONS).values(order_id=order_id, **values))
    finally:
        engine.dispose()


@flow(name="order-approval", flow_run_name=run_name("order {order_id}"))
def order_approval(
    order_id: str | int,
    amount: float,
    customer: str = "",
    approve_within_seconds: float = 86_400,
) -> State[dict[str, Any]]:
    """Reserve an order, wait for its approval, then confirm or release it.

    The answer comes with the key ``order-<order_id>`` and the input ``{"approved": true}`` (and ``note``). An order
    that nobody decides on within ``approve_within_seconds`` is released, and its run fails; the run of one that is
    rejected ends as Cancelled. Needs a database:
    ``SLUICE_DATABASE_URL``, or SQLite in ``data.db`` of ``SLUICE_HOME``.
    """
    order = str(order_id)
    timeline = Timeline(order)
    try:
        validate(order, amount)
        timeline.add("received", f"{amount:.2f} for {customer or 'an unnamed customer'}")
        set_status(order, amount, "reserved")
        timeline.add("reserved", "waits for approval")
        timeline.publish()  # who is asked sees what happened so far
        return _decide(order, amount, customer, approve_within_seconds, timeline)
    finally:
        timeline.publish()


def _decide(
    order: str, amount: float, customer: str, within_seconds: float, timeline: Timeline
) -> State[dict[str, Any]]:
    asked = (
        f"### May order {in_markdown(order)} go out?\n\n**{amount:.2f}** for {in_markdown(customer or 'nobody named')}"
    )
    try:
        answer = wait_for_signal(key=f"order-{order}", input=Approval, timeout=within_seconds, description=asked)
    except SignalTimeout:
        set_status(order, amount, "released")
        timeline.add("released", "nobody decided in time")
        return Failed(message=f"order {order} was released: nobody decided within {within_seconds:g} s")
    except SignalRejected as rejection:
        answer = Approval(approved=False, by=rejection.by or "", note=rejection.reason or "")
    status = "confirmed" if answer.approved else "rejected"
    set_status(order, amount, status)
    said = f"{f' by {answer.by}' if answer.by else ''}{f': {answer.note}' if answer.note else ''}"
    timeline.add(status, said.strip(" :"))
    data = {"order_id": order, "status": status, "by": answer.by}
    # Nothing is broken, so it is no failure, and nothing was done, so it is not green.
    ended = Completed if answer.approved else Cancelled
    return ended(message=visible(f"order {order} is {status}{said}"), data=data)


if __name__ == "__main__":
    order_approval("1042", 129.5)
