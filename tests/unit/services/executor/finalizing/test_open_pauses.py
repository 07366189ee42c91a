"""What a run's states say of a pause that outlives its process."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun, FlowRunPolicy, State, StateDetails, StateType

from services.executor.finalizing.open_pauses import (
    _kept_id,
    _overwritten,
    _without_past_reminder,
    policy_for_a_new_start,
)
from sluice.protocol import REMINDER, WAIT

NOW = datetime.now(UTC)


def _state(kind: StateType, **details: Any) -> State[Any]:
    return State(id=uuid4(), type=kind, timestamp=NOW, state_details=StateDetails(**details))


def _kept(paused: State[Any]) -> State[Any]:
    return _state(StateType.PAUSED, pause_reschedule=True, transition_id=_kept_id(paused))


def test_a_pause_that_was_kept_at_once_has_overwritten_nothing() -> None:
    paused = _state(StateType.PAUSED)
    assert _overwritten([_state(StateType.RUNNING), paused, _kept(paused)]) is None


@pytest.mark.parametrize("kind", [StateType.SCHEDULED, StateType.CANCELLING, StateType.COMPLETED])
def test_a_state_that_came_in_between_is_found(kind: StateType) -> None:
    paused, between = _state(StateType.PAUSED), _state(kind)
    assert _overwritten([paused, between, _kept(paused)]) is between


def test_another_finalizer_of_the_same_pause_has_answered_nothing() -> None:
    paused = _state(StateType.PAUSED)
    assert _overwritten([paused, _kept(paused), _kept(paused)]) is None


def test_a_run_that_has_left_the_pause_needs_no_healing() -> None:
    paused = _state(StateType.PAUSED)
    assert _overwritten([paused, _kept(paused), _state(StateType.SCHEDULED)]) is None


@pytest.mark.parametrize(("key", "stays"), [("plain", False), (f"{WAIT}1-order", True)])
def test_an_unanswered_pause_of_prefects_is_entered_again(key: str, *, stays: bool) -> None:
    run = SimpleNamespace(
        state=_state(StateType.PAUSED, pause_key=key),
        empirical_policy=FlowRunPolicy(pause_keys={key, "earlier"}, retry_type="in_process"),
    )
    policy = policy_for_a_new_start(cast(FlowRun, run))
    assert policy.pause_keys == ({key, "earlier"} if stays else {"earlier"})
    assert policy.retry_type is None


def test_a_reminder_that_is_due_was_sent_by_the_process() -> None:
    past, coming = (NOW - timedelta(seconds=5)).isoformat(), (NOW + timedelta(hours=1)).isoformat()
    assert _without_past_reminder({REMINDER: past, "schema": "s"}) == {"schema": "s"}
    assert _without_past_reminder({REMINDER: coming}) == {REMINDER: coming}
    assert _without_past_reminder(None) is None
