"""Resume messages from outside: who may say what, and under which id."""

from __future__ import annotations

import json
from typing import Any

import pytest

from events.action import ResumeRun
from events.errors import RejectedEvent
from events.identity import identity_of
from events.signal import LONGEST_ID, ResumeSignal, parse_signal, signal_for, signal_id_of
from events.untrusted_json import Limits

EVENT = {"specversion": "1.0", "id": "e1", "source": "shop", "type": "sluice.resume", "data": {"key": "k"}}


def parsed(message: Any, **options: Any) -> ResumeSignal:
    return parse_signal(json.dumps(message).encode(), limits=Limits(), **options)


def test_a_plain_message_keeps_its_id_or_gets_one() -> None:
    assert parsed({"key": "k", "id": "own"}, default_id="d").id == "own"
    assert parsed({"key": "k"}, default_id="d").id == "d"
    assert parsed({"key": "k"}).id != parsed({"key": "k"}).id


def test_the_same_event_id_of_two_sources_is_two_signals() -> None:
    assert parsed(EVENT).id == identity_of("shop", "e1")
    assert parsed(EVENT | {"source": "other"}).id != parsed(EVENT).id
    assert parsed(EVENT | {"data": {"key": "k", "id": "own"}}).id == "own"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ([], "not a JSON object"),
        ({}, "exactly one of"),
        ({"key": "k", "run_id": "b31b9f74-0000-4000-8000-000000000000"}, "exactly one of"),
        ({"key": "k", "event_identity": "x"}, "no field `event_identity`"),
        ({"key": "k", "wait": "x"}, "no field `wait`"),
        ({"key": "k", "surprise": 1}, "surprise"),
        ({"key": "k", "ttl_seconds": 0}, "ttl_seconds"),
        (EVENT | {"type": "order.new"}, "must have the type"),
        (EVENT | {"data": None}, "`data` is not a JSON object"),
    ],
)
def test_what_is_no_signal_is_rejected_with_the_reason(message: Any, said: str) -> None:
    with pytest.raises(RejectedEvent, match=said):
        parsed(message)


def test_an_id_of_any_length_becomes_one_that_is_bounded() -> None:
    assert signal_id_of("short") == "short"
    long = ["x" * LONGEST_ID + end for end in "ab"]
    assert len({signal_id_of(name) for name in long}) == 2
    assert all(len(signal_id_of(name)) <= LONGEST_ID for name in long)


def test_an_action_sends_one_signal_however_often_it_is_done() -> None:
    action = ResumeRun(rule="approve", identities=("e1@x",), key="order-7", input={"ok": True}, ordinal=1)
    first, second = signal_for(action), signal_for(action)
    assert first.id == second.id == "e1@x:approve#1"
    assert (first.target, first.by, first.event_identity) == ("key order-7", "rule approve", "e1@x")
