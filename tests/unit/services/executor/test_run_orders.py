"""What a slot is told of its run, by the run's new state in Prefect."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from services.executor.messages import CancelRun, RunOvertaken, SuspendRun
from services.executor.run_orders import order_for
from services.prefect_api.runs import StateChange

NOW = datetime(2026, 1, 31, tzinfo=UTC)


def change(state_type: str, name: str, state_id: str | None = "s1") -> StateChange:
    return StateChange(run_id="r1", state_type=state_type, state_name=name, state_id=state_id, occurred=NOW)


def test_a_run_that_is_being_cancelled_is_cancelled() -> None:
    assert order_for(change("CANCELLING", "Cancelling")) == CancelRun("r1")


def test_a_run_that_was_suspended_stops_at_its_next_step() -> None:
    assert order_for(change("PAUSED", "Suspended")) == SuspendRun("r1", "s1", NOW)


@pytest.mark.parametrize(("kind", "name"), [("PAUSED", "Paused"), ("RUNNING", "Running"), ("PENDING", "Pending")])
def test_a_run_that_needs_its_process_keeps_it(kind: str, name: str) -> None:
    assert order_for(change(kind, name)) is None


def test_a_run_that_was_scheduled_anew_is_stopped_and_left_as_it_is() -> None:
    order = order_for(change("SCHEDULED", "Late"))
    assert isinstance(order, RunOvertaken)
    assert (order.intent, order.state_id) == ("reschedule", "s1")
    assert "scheduled anew (Late)" in order.why


@pytest.mark.parametrize("kind", ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"])
def test_a_run_that_somebody_ended_is_stopped(kind: str) -> None:
    order = order_for(change(kind, kind.title()))
    assert isinstance(order, RunOvertaken)
    assert order.intent == "cancel"
    assert f"set to {kind.title()} from outside" in order.why


def test_a_run_that_was_deleted_is_stopped() -> None:
    order = order_for(change("DELETED", "", None))
    assert isinstance(order, RunOvertaken)
    assert order.state_id is None
    assert "was deleted" in order.why
