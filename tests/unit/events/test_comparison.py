from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from events.comparison import compare, effects_of
from events.event import Event
from events.rule import RuleSet
from tests.unit.events.making import event, events, rules
from tests.unit.events.test_rule import SPECS

RULE: dict[str, Any] = {"name": "a", "on": "order.*", "parameters": {"x": "{{ event.data }}"}}


def differences(before: RuleSet, after: RuleSet, *past: Event) -> list[tuple[str, str, str, str]]:
    return [(one.change, one.event.id, one.effect.rule, one.effect.does) for one in compare(before, after, past)]


def test_the_same_rules_make_no_difference() -> None:
    assert differences(rules(RULE), rules(RULE), event(), event("other")) == []


def test_a_rule_more_starts_what_was_not_started_and_one_less_is_missed() -> None:
    more = {"name": "b", "on": "*", "run": "c/d"}
    assert differences(rules(RULE), rules(RULE, more), event()) == [("started", "e1", "b", "run c/d")]
    assert differences(rules(RULE, more), rules(RULE), event()) == [("missing", "e1", "b", "run c/d")]


def test_changed_parameters_are_both_missed_and_started() -> None:
    changed = {**RULE, "parameters": {"x": "{{ event.id }}"}}
    assert [one[0] for one in differences(rules(RULE), rules(changed), event(data=1))] == ["missing", "started"]


def test_another_name_or_order_makes_no_difference() -> None:
    other = {"name": "b", "on": "*"}
    renamed = {**RULE, "name": "z"}
    assert differences(rules(RULE, other), rules(other, renamed), event()) == []


def test_a_template_that_no_longer_renders_is_a_dead_letter_started() -> None:
    broken = {**RULE, "parameters": {"x": "{{ event.data.gone }}"}}
    assert ("started", "e1", "a", "dead letter") in differences(rules(RULE), rules(broken), event())


def test_another_window_or_key_is_a_difference() -> None:
    batch = {"name": "a", "on": "*", "batch": {"max_events": 5, "max_wait_seconds": 1, "key": "{{ event.source }}"}}
    larger = {**batch, "batch": {**batch["batch"], "max_events": 6}}
    assert differences(rules(batch), rules(batch), event()) == []
    assert [one[3] for one in differences(rules(batch), rules(larger), event())] == ["batch for flow/deployment"] * 2


def test_two_equal_effects_are_not_one() -> None:
    twin = {**RULE, "name": "twin"}
    assert differences(rules(RULE, twin), rules(RULE), event()) == [("missing", "e1", "twin", "run flow/deployment")]


@given(
    st.lists(st.sampled_from(range(len(SPECS))), max_size=5),
    st.lists(st.sampled_from(range(len(SPECS))), max_size=5),
    events,
)
def test_one_way_is_the_reverse_of_the_other(one: list[int], other: list[int], past: Event) -> None:
    before = rules(*(SPECS[index] for index in one))
    after = rules(*(SPECS[index] for index in other))
    there = [(found.change, found.effect.content) for found in compare(before, after, [past])]
    back = [(found.change, found.effect.content) for found in compare(after, before, [past])]
    swapped = {"started": "missing", "missing": "started"}
    assert sorted(there) == sorted((swapped[change], content) for change, content in back)
    assert len(effects_of(after, past)) - len(effects_of(before, past)) == sum(
        1 if change == "started" else -1 for change, _ in there
    )
