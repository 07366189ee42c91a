from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from events.action import RunDeployment
from events.event import Event
from events.identity import identity_of
from events.rule import (
    MOST_REMEMBERED_TYPES,
    Rule,
    RuleSet,
    Verdict,
    WindowKeys,
    evaluate,
    explained,
)
from events.rule_parts import EVENT_KEYS
from tests.unit.events.making import event, events, rule, rules, running


def verdict(compiled: Rule, one: Event) -> Verdict:
    (found,) = evaluate(RuleSet([compiled]), one)
    return found


def run_of(found: Verdict) -> RunDeployment:
    (action,) = found.actions
    assert isinstance(action, RunDeployment)
    return action


class TestARuleThatMatches:
    def test_starts_its_deployment_with_native_parameters(self) -> None:
        compiled = running(
            on="order.*",
            parameters={"id": "{{ event.data.id }}", "order": "{{ event.data }}", "fixed": [1, None]},
            run_name="order {{ event.data.id }}\n",
            tags=["vip", "customer:{{ event.data.customer }}", "vip"],
            work_queue="{{ 'fast' if event.data.vip else 'slow' }}",
            job_variables={"env": {"CUSTOMER": "{{ event.data.customer }}"}},
        )
        data = {"id": 7, "customer": "ada", "vip": True}
        assert run_of(verdict(compiled, event(data=data))) == RunDeployment(
            rule="r",
            identities=(identity_of("shop", "e1"),),
            deployment="flow/deployment",
            parameters={"id": 7, "order": data, "fixed": [1, None]},
            run_name="order 7",
            tags=("vip", "customer:ada"),
            work_queue="fast",
            job_variables={"env": {"CUSTOMER": "ada"}},
        )

    def test_does_several_things_in_order_under_keys_of_their_own(self) -> None:
        compiled = rule(do=[{"run": "a/b"}, {"resume": {"key": "k"}}, {"run": "c/d"}])
        actions = verdict(compiled, event()).actions
        assert [action.kind for action in actions] == ["run", "resume", "run"]
        assert [action.idempotency_key for action in actions] == [
            f"{event().identity}:r{number}" for number in ("", "#1", "#2")
        ]

    def test_and_cannot_be_rendered_carries_the_error(self) -> None:
        found = verdict(running(run_name="{{ event.data.name }}"), event(data={}))
        assert found.matched
        assert found.actions == ()
        assert found.error is not None
        assert found.error.code == "template"


class TestARuleThatDoesNotMatch:
    @pytest.mark.parametrize(
        ("keys", "fields", "failed", "said"),
        [
            ({"on": "order.paid"}, {}, "type", "the type does not match 'order.paid': 'order.created'"),
            ({"on": ["a", "b"]}, {}, "type", "'a' or 'b'"),
            ({"source": "files:*"}, {}, "source", "'shop' does not match 'files:*'"),
            ({"subject": "*.csv"}, {"subject": "a.txt"}, "subject", "'a.txt' does not match '*.csv'"),
            ({"subject": "*"}, {}, "subject", "no subject"),
            ({"when": "event.data.size > 0"}, {"data": {"size": 0}}, "when", "event.data.size = 0"),
            ({"when": "event.data.size > 0"}, {"data": {"sise": 0}}, "when", "no key 'size'"),
            ({"when": "event.data.size > 0"}, {"data": {"size": "a"}}, "when", "not supported"),
            ({"when": "event.data.flag"}, {"data": {"flag": []}}, "when", "a list of 0"),
            ({"enabled": False}, {}, "enabled", "disabled"),
        ],
    )
    def test_says_which_criterion_failed_with_which_value(
        self, keys: dict[str, Any], fields: dict[str, Any], failed: str, said: str
    ) -> None:
        found = verdict(running(**keys), event(**fields))
        assert not found.matched
        assert found.failed == failed
        assert said in explained(found, "order.created")

    def test_tells_the_first_criterion_that_failed(self) -> None:
        compiled = running(on="order.*", source="x", subject="x", when="false")
        assert verdict(compiled, event()).failed == "source"


class TestStop:
    def test_keeps_the_rules_below_from_being_asked(self) -> None:
        found = evaluate(rules({"stop": True}, {}, {"enabled": False}, {"on": "other"}), event())
        assert [one.failed for one in found] == [None, "stop", "enabled", "stop"]
        assert "'r0'" in found[1].detail

    def test_of_a_rule_that_did_not_match_stops_nothing(self) -> None:
        found = evaluate(rules({"stop": True, "when": "false"}, {}), event())
        assert [one.matched for one in found] == [False, True]


class TestWindows:
    def test_keys_are_rendered_with_the_verdict(self) -> None:
        compiled = running(
            batch={"max_events": 10, "max_wait_seconds": 1, "key": "{{ event.data.a }}"},
            throttle={"per_seconds": 1, "key": "t-{{ event.data.b }}"},
            dedupe_key="{{ event.data.c }}",
        )
        found = verdict(compiled, event(data={"a": 1, "b": 2, "c": 3}))
        assert found.keys == WindowKeys("1", "t-2", "3")
        assert found.actions == ()

    def test_without_a_key_all_events_of_the_rule_are_together(self) -> None:
        compiled = running(debounce={"wait_seconds": 1})
        assert verdict(compiled, event()).keys == WindowKeys("")

    def test_a_rule_that_passes_one_by_one_has_its_actions_ready(self) -> None:
        found = verdict(running(throttle={"per_seconds": 1}), event())
        assert found.keys == WindowKeys(throttle="")
        assert len(found.actions) == 1

    def test_a_key_that_cannot_be_rendered_is_an_error(self) -> None:
        compiled = running(dedupe_key="{{ event.data.c }}")
        for data in ({}, {"c": "x" * 600}):
            error = verdict(compiled, event(data=data)).error
            assert error is not None
            assert error.code == "template"

    def test_one_run_is_made_of_all_events_gathered(self) -> None:
        compiled = running(
            batch={"max_events": 10, "max_wait_seconds": 1},
            parameters={"rows": "{{ events | map(attribute='data') | list }}", "last": "{{ event.data }}"},
        )
        (action,) = compiled.actions([event(id="a", data=1), event(id="b", data=2)])
        assert isinstance(action, RunDeployment)
        assert action.identities == (identity_of("shop", "a"), identity_of("shop", "b"))
        assert action.parameters == {"rows": [1, 2], "last": 2}
        assert action.idempotency_key == action.identities[0] + ":r"

    def test_kinds_that_belong_together_are_seen_by_name(self) -> None:
        compiled = running(
            correlate={
                "all": {"order": "order.*", "payment": "payment.*"},
                "key": "{{ event.data.id }}",
                "within_seconds": 9,
            },
            parameters={"amount": "{{ joined.payment.data.amount }}", "id": "{{ joined.order.data.id }}"},
        )
        order, payment = event(id="a", data={"id": 1}), event("payment.made", id="b", data={"id": 1, "amount": 5})
        assert verdict(compiled, order).keys == WindowKeys("1")
        assert compiled.kinds("payment.made") == ["payment"]
        (action,) = compiled.actions([order, payment], {"order": order, "payment": payment})
        assert isinstance(action, RunDeployment)
        assert action.parameters == {"amount": 5, "id": 1}


SPECS: list[dict[str, Any]] = [
    {"on": "order.*"},
    {"on": "*", "subject": "*a*"},
    {"on": ["x", "file.*"], "when": "event.data.size > 0"},
    {"on": "*", "when": "event.data.name is string and event.data.name | length > 2"},
    {"on": "*", "source": "?*", "parameters": {"a": "{{ event.data.size }}", "b": "{{ event }}"}},
    {"on": "order.created", "run_name": "{{ event.data.name | upper }}"},
    {"on": "*", "enabled": False},
    {"on": "*", "batch": {"max_events": 2, "max_wait_seconds": 1, "key": "{{ event.data.size }}"}},
    {"on": "*", "dedupe_key": "{{ event.subject | default(event.id) }}", "throttle": {"per_seconds": 5}},
]


class TestAnyEvent:
    @given(events)
    def test_gets_a_verdict_from_every_rule(self, one: Event) -> None:
        found = evaluate(rules(*SPECS), one)
        assert [verdict.rule for verdict in found] == [f"r{index}" for index in range(len(SPECS))]
        for verdict_ in found:
            assert verdict_.matched == (verdict_.failed is None)
            assert verdict_.matched or (verdict_.detail and not verdict_.actions and verdict_.error is None)
            assert not (verdict_.error and verdict_.actions)

    @given(st.permutations(range(len(SPECS))), events)
    def test_gets_the_same_verdicts_in_whatever_order_the_rules_stand(self, order: list[int], one: Event) -> None:
        named = [{**spec, "name": f"n{index}"} for index, spec in enumerate(SPECS)]
        straight = {found.rule: said(found) for found in evaluate(rules(*named), one)}
        shuffled = {found.rule: said(found) for found in evaluate(rules(*(named[index] for index in order)), one)}
        assert straight == shuffled

    @given(st.lists(st.booleans(), min_size=2, max_size=9), events)
    def test_finds_stop_to_change_only_what_stands_below(self, stops: list[bool], one: Event) -> None:
        specs = [{**SPECS[index % len(SPECS)], "name": f"n{index}"} for index in range(len(stops))]
        free = evaluate(rules(*specs), one)
        stopped = evaluate(rules(*({**spec, "stop": stop} for spec, stop in zip(specs, stops, strict=True))), one)
        last = next((index for index, found in enumerate(free) if found.matched and stops[index]), len(stops))
        assert [said(found) for found in stopped[: last + 1]] == [said(found) for found in free[: last + 1]]
        assert all(found.failed in {"stop", "enabled"} for found in stopped[last + 1 :])

    @given(events)
    def test_gets_the_same_verdicts_again_and_from_rules_that_have_seen_others(self, one: Event) -> None:
        fresh, used = rules(*SPECS), rules(*SPECS)
        for number in range(30):
            evaluate(used, event(f"type-{number}"))
        assert [said(found) for found in evaluate(used, one)] == [said(found) for found in evaluate(fresh, one)]

    @settings(max_examples=5)
    @given(st.lists(st.text(min_size=1, max_size=5), min_size=40, max_size=60, unique=True))
    def test_of_whatever_type_leaves_memory_bounded(self, types: list[str]) -> None:
        compiled = rules(*SPECS)
        for number, type_ in itertools.product(range(60), types):
            compiled.candidates(f"{type_}{number}")
        assert len(compiled._candidates) <= MOST_REMEMBERED_TYPES


def said(found: Verdict) -> Any:
    return (found.rule, found.matched, found.failed, found.detail, found.actions, str(found.error), found.keys)


def test_templates_know_every_attribute_of_an_event() -> None:
    assert set(Event.model_fields) == EVENT_KEYS


def test_rules_are_found_by_name() -> None:
    compiled = rules({"name": "a"}, {"name": "b"})
    assert compiled.get("b") is compiled.rules[1]
    assert compiled.get("c") is None
    assert len(compiled) == 2
