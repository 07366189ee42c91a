"""What a rule asks of its windows, and what comes of the events that one of them has gathered."""

from __future__ import annotations

from typing import Any

import pytest

from events.action import RunDeployment
from events.errors import RejectedEvent
from events.rule import Rule, WindowKeys
from events.window import Ask, Gathered, ask_of, can_be_divided, conclude, halves_of
from tests.unit.events.making import event, running


def correlating() -> Rule:
    correlate = {"all": {"order": "order.*", "payment": "payment.*"}, "key": "{{ event.id }}", "within_seconds": 9}
    return running(correlate=correlate)


@pytest.mark.parametrize(
    ("fields", "keys", "asked"),
    [
        (
            {"batch": {"max_events": 3, "max_wait_seconds": 5}},
            WindowKeys(gather=""),
            Ask("r", dedupe_seconds=86_400, mode="batch", max_events=3, wait_seconds=5, max_wait_seconds=5),
        ),
        (
            {"debounce": {"wait_seconds": 2, "max_events": 7}},
            WindowKeys(gather="k"),
            Ask(
                "r",
                dedupe_seconds=86_400,
                mode="debounce",
                key="k",
                max_events=7,
                wait_seconds=2,
                max_wait_seconds=float("inf"),
            ),
        ),
        (
            {"throttle": {"max_events": 4, "per_seconds": 60}, "dedupe_key": "{{ event.id }}", "dedupe_seconds": 8},
            WindowKeys(throttle="t", dedupe=""),
            Ask(
                "r",
                dedupe_key="",
                dedupe_seconds=8,
                throttle_key="t",
                throttle_events=4,
                throttle_seconds=60,
            ),
        ),
    ],
    ids=["batch", "debounce", "throttle and dedupe"],
)
def test_a_rule_asks_for_the_windows_that_it_has(fields: dict[str, Any], keys: WindowKeys, asked: Ask) -> None:
    assert ask_of(running(**fields), keys, event()) == asked


def test_an_event_of_a_correlation_says_what_it_may_stand_for() -> None:
    asked = ask_of(correlating(), WindowKeys(gather="1"), event(type="payment.made"))
    assert (asked.mode, asked.kinds, asked.all_kinds) == ("correlate", ("payment",), ("order", "payment"))
    assert asked.wait_seconds == asked.max_wait_seconds == 9


def test_a_window_that_closed_leads_to_one_action_for_all_its_events() -> None:
    batch = running(batch={"max_events": 3, "max_wait_seconds": 5})
    gathered = [Gathered(event(id=str(number)), salt="again" if number else None) for number in range(3)]
    (action,) = conclude(batch, gathered, complete=True, key="")
    assert isinstance(action, RunDeployment)
    assert len(action.identities) == 3
    assert action.salt == "again"


@pytest.mark.parametrize("complete", [True, False])
def test_a_correlation_without_an_event_of_each_kind_leads_to_nothing(complete: bool) -> None:
    with pytest.raises(RejectedEvent, match="no payment") as refused:
        conclude(correlating(), [Gathered(event(type="order.new"), "order")], complete=complete, key="1")
    assert refused.value.code == "incomplete"


def test_what_a_rule_held_that_is_gone_leads_to_nothing() -> None:
    with pytest.raises(RejectedEvent) as refused:
        conclude(None, [Gathered(event())], complete=True, key="")
    assert refused.value.code == "rule-gone"


def test_a_refused_batch_is_divided_into_the_same_halves_each_time() -> None:
    batch = running(batch={"max_events": 9, "max_wait_seconds": 5}, parameters={"n": "{{ events | length }}"})
    events = [event(id=str(number)) for number in range(5)]
    (whole,) = conclude(batch, [Gathered(one) for one in events], complete=True, key="")
    assert isinstance(whole, RunDeployment)
    halves = halves_of(batch, whole, events)
    assert [half.parameters["n"] for half in halves] == [2, 3]
    assert halves == halves_of(batch, whole, events)
    assert not can_be_divided(correlating(), 2)
    assert halves_of(batch, whole, events[:1]) == ()
