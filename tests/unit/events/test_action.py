from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from events.action import Action, ResumeRun, RunDeployment, idempotency_key
from tests.unit.events.making import attributes, json_values


def test_the_first_action_of_a_rule_has_the_bare_key() -> None:
    assert RunDeployment(rule="r", identities=("e1", "e2"), deployment="f/d").idempotency_key == "e1:r"


def test_later_actions_and_reruns_are_told_apart() -> None:
    keys = [idempotency_key("e", "r", ordinal, salt) for ordinal in range(3) for salt in (None, "again")]
    assert len(set(keys)) == len(keys)


@given(attributes, attributes, st.integers(0, 3), json_values)
def test_an_action_survives_the_way_through_json(event_id: str, rule: str, ordinal: int, value: object) -> None:
    adapter: TypeAdapter[Action] = TypeAdapter(Action)
    for action in (
        RunDeployment(rule=rule, identities=(event_id,), deployment="f/d", parameters={"a": value}, ordinal=ordinal),
        ResumeRun(rule=rule, identities=(event_id,), key="k", input={"a": value}, ordinal=ordinal),
    ):
        assert adapter.validate_json(adapter.dump_json(action)) == action


def test_an_action_without_an_event_is_none() -> None:
    with pytest.raises(ValidationError):
        RunDeployment(rule="r", identities=(), deployment="f/d")
