"""An action before the event is known, and what it becomes with one."""

from __future__ import annotations

from typing import Any

import pytest

from events.action import Action, ResumeRun, RunDeployment
from events.action_template import ActionTemplate
from events.errors import RejectedEvent
from events.rule_model import LONGEST_WINDOW_SECONDS, ActionSpec
from events.rule_parts import OVER_EVENT
from tests.unit.events.making import NOON, scope

WHO = ("shop/e1",)


def template(**keys: Any) -> ActionTemplate:
    return ActionTemplate(ActionSpec.model_validate(keys), rule="r", ordinal=2, names=OVER_EVENT)


def made(data: Any = None, /, **keys: Any) -> Action:
    compiled = template(**keys)
    assert compiled.problems == []
    return compiled.render(WHO, {"event": scope(data, subject="abc")["event"]})


def run_of(data: Any = None, /, **keys: Any) -> RunDeployment:
    action = made(data, run="flow/deployment", **keys)
    assert isinstance(action, RunDeployment)
    return action


def refusal(data: Any, **keys: Any) -> RejectedEvent:
    with pytest.raises(RejectedEvent) as caught:
        made(data, **keys)
    return caught.value


class TestARun:
    def test_gets_what_the_rule_says_filled_in_from_the_event(self) -> None:
        data = {"id": 7, "who": "ada", "vip": True}
        assert run_of(
            data,
            parameters={"id": "{{ event.data.id }}", "order": "{{ event.data }}", "fixed": [1, None]},
            run_name="order {{ event.data.id }}\n",
            tags=["vip", "customer:{{ event.data.who }}", "vip", "{{ '' }}"],
            work_queue="{{ 'fast' if event.data.vip else 'slow' }}",
            job_variables={"env": {"CUSTOMER": "{{ event.data.who }}"}},
        ) == RunDeployment(
            rule="r",
            identities=WHO,
            deployment="flow/deployment",
            parameters={"id": 7, "order": data, "fixed": [1, None]},
            run_name="order 7",
            tags=("vip", "customer:ada"),
            work_queue="fast",
            job_variables={"env": {"CUSTOMER": "ada"}},
            ordinal=2,
        )

    def test_may_take_its_parameters_whole_from_the_event(self) -> None:
        assert run_of({"a": 1}, parameters="{{ event.data }}").parameters == {"a": 1}

    def test_may_be_put_off(self) -> None:
        later = run_of(after_seconds=30)
        assert (later.scheduled_seconds, later.scheduled_at) == (30, None)
        assert run_of({"minutes": 2}, after_seconds="{{ event.data.minutes * 60 }}").scheduled_seconds == 120
        assert run_of({"due": " 2026-03-01T13:00:00+01:00 "}, at="{{ event.data.due }}").scheduled_at == NOON

    def test_has_a_short_printable_name_and_such_tags(self) -> None:
        action = run_of("\x1b" + "x" * 999, run_name="{{ event.data }}", tags=["{{ event.data }}"])
        assert action.run_name is not None
        assert len(action.run_name) <= 200
        assert action.run_name.isprintable()
        assert all(len(tag) <= 200 and tag.isprintable() for tag in action.tags)

    def test_whose_name_is_empty_has_none(self) -> None:
        assert run_of("", run_name="{{ event.data }}").run_name is None

    @pytest.mark.parametrize("value", ["{{ prefect.blocks.secret.token }}", {"a": ["x {{ y"]}, {"{{ a }}": 1}])
    def test_never_hands_a_worker_something_to_fill_in(self, value: Any) -> None:
        assert refusal(value, run="a/b", job_variables={"x": "{{ event.data }}"}).code == "hydration"


class TestAResume:
    def test_goes_to_what_waits_for_its_key(self) -> None:
        resume = {"key": "order-{{ event.data.id }}", "input": {"approved": True, "by": "{{ event.data.user }}"}}
        more = {"ttl_seconds": "{{ event.data.id * 10 }}", "by": "{{ event.source }}", "deliver": "one", "buffer": True}
        assert made({"id": 7, "user": "ada"}, resume=resume | more) == ResumeRun(
            rule="r",
            identities=WHO,
            key="order-7",
            input={"approved": True, "by": "ada"},
            by="shop",
            ttl_seconds=70,
            deliver="one",
            buffer=True,
            ordinal=2,
        )

    def test_may_reject_by_run_id(self) -> None:
        action = made(resume={"run_id": "{{ event.subject }}", "action": "reject", "reason": "{{ event.type }}"})
        assert isinstance(action, ResumeRun)
        assert (action.run_id, action.action, action.reason) == ("abc", "reject", "order.created")


class TestWhatCannotBeRendered:
    @pytest.mark.parametrize(
        ("keys", "data", "said"),
        [
            ({"at": "{{ event.data }}"}, "tomorrow", "`at` gave 'tomorrow', not an ISO 8601 time"),
            ({"at": "{{ event.data }}"}, "2026-03-01T12:00:00", "without its zone"),
            ({"after_seconds": "{{ event.data }}"}, "soon", "`after_seconds` gave 'soon'"),
            ({"after_seconds": "{{ event.data }}"}, -1, "gave -1"),
            ({"after_seconds": "{{ event.data }}"}, LONGEST_WINDOW_SECONDS + 1, str(LONGEST_WINDOW_SECONDS)),
            ({"after_seconds": "{{ event.data }}"}, True, "gave True"),
            ({"run_name": "{{ event.data.name }}"}, {}, "'name'"),
            ({"parameters": {"a": {"b": ["{{ event.data.gone }}"]}}}, {}, "'gone'"),
            ({"parameters": "{{ event.data }}"}, [1], "`parameters` gave a list, not a mapping"),
        ],
    )
    def test_is_a_fault_of_the_event_told_with_its_value(self, keys: dict[str, Any], data: Any, said: str) -> None:
        refused = refusal(data, run="a/b", **keys)
        assert refused.code == "template"
        assert said in refused.reason

    def test_names_a_field_that_the_action_does_not_take(self) -> None:
        with pytest.raises(RejectedEvent, match="the action of rule 'r' is not valid: identities: "):
            template(run="a/b").render((), {})


def test_problems_stand_behind_their_paths_all_at_once() -> None:
    compiled = template(run="a/b", parameters={"a": ["{{ evnt }}"]}, tags=["ok", "{{ x }}"], at="{{ event.tim }}")
    assert [path for path, _ in compiled.problems] == [("parameters", "a", 0), ("tags", 1), ("at",)]
    assert [path for path, _ in template(resume={"key": "{{ x }}"}).problems] == [("resume", "key")]
