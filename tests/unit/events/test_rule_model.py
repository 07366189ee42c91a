"""What the project file may say of a rule, and what it is told otherwise."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from events.rule_model import LONGEST_WINDOW_SECONDS, PARTS_ONLY, Rate, RuleSpec

ADAPTER = TypeAdapter(RuleSpec)


def spec(**keys: Any) -> RuleSpec:
    return ADAPTER.validate_python({"name": "r", "on": "*", "run": "a/b", **keys})


def refused(rule: dict[str, Any], *, context: str | None = None) -> str:
    with pytest.raises(ValidationError) as caught:
        ADAPTER.validate_python({"name": "r", **rule}, context=context)
    return str(caught.value)


WINDOW = {"max_events": 2, "max_wait_seconds": 1}


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"on": "*"}, "name exactly one of `run` and `resume`"),
        ({"on": "*", "run": "a/b", "resume": {"key": "k"}}, "name exactly one of `run` and `resume`"),
        ({"on": "*", "resume": {}}, "name exactly one of `key` and `run_id`"),
        ({"on": "*", "resume": {"key": "k", "run_id": "r"}}, "name exactly one of `key` and `run_id`"),
        (
            {"on": "*", "run": "a/b", "after_seconds": 1, "at": "{{ event.time }}"},
            "only one of `after_seconds` and `at`",
        ),
        ({"on": "*", "resume": {"key": "k"}, "tags": ["t"]}, "`tags` belongs to `run`, not to `resume`"),
        ({"on": "*", "do": [{"run": "a/b"}], "tags": ["t"]}, "`tags` stands beside `do`"),
        ({"on": "*", "do": [{}]}, "name exactly one of `run` and `resume`"),
        ({"run": "a/b"}, "name `on`: a glob on the event's type"),
        (
            {"on": "*", "run": "a/b", "correlate": {"all": {"a": "x", "b": "y"}, "key": "k", "within_seconds": 1}},
            "leave out `on`",
        ),
        (
            {"on": "*", "run": "a/b", "batch": WINDOW, "debounce": {"wait_seconds": 1}},
            "only one of `batch`, `debounce` and `correlate` may be used, not batch and debounce",
        ),
        ({"on": "*", "run": "a/b", "dedupe_seconds": 5}, "`dedupe_seconds` belongs to a `dedupe_key`"),
        ({"on": "*", "run": "a/b", "after_seconds": "30"}, "a number of seconds without quotes"),
        ({"on": "*", "run": "a/b", "after_seconds": True}, "a number of seconds, or a template"),
        ({"on": "*", "run": "a/b", "after_seconds": LONGEST_WINDOW_SECONDS + 1}, "write between 0 and"),
        ({"on": "*", "run": "a/b", "parameters": "event.data"}, "one template that gives a mapping"),
        ({"on": "*", "run": "a/b", "parameters": [1]}, "write a mapping"),
        ({"on": "*", "run": "a/b", "enabled": "yes"}, "enabled"),
        ({"on": [], "run": "a/b"}, "on"),
        ({"on": "*", "run": "a"}, "run"),
        ({"on": "*", "run": "{{ event.type }}/b"}, "run"),
        ({"on": "*", "run": "a/b", "when": ""}, "when"),
        ({"on": "*", "run": "a/b", "tags": [""]}, "tags"),
        ({"on": "*", "run": "a/b", "colour": "red"}, "colour"),
        ({"on": "*", "run": "a/b", "batch": {**WINDOW, "max_events": 0}}, "max_events"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(rule: dict[str, Any], said: str) -> None:
    assert said in refused(rule)


@pytest.mark.parametrize("name", ["", "-a", "a b", "a/b", "x" * 101, "ä"])
def test_a_name_is_fit_for_keys_and_addresses(name: str) -> None:
    with pytest.raises(ValidationError):
        spec(name=name)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10/minute", (10, 60)),
        ("5 / second", (5, 1)),
        ("100/2 hours", (100, 7200)),
        (" 1/day ", (1, 86_400)),
        ("3/10seconds", (3, 10)),
    ],
)
def test_a_rate_is_read_as_it_is_said(text: str, rate: tuple[int, float]) -> None:
    assert spec(rate=text).rate == Rate(count=rate[0], per_seconds=rate[1])


@pytest.mark.parametrize(
    "text", ["0/minute", "5/0 seconds", "10", "10/week", "-1/minute", "a/second", 10, None, ["1/day"]]
)
def test_what_is_no_rate_is_told_what_one_looks_like(text: Any) -> None:
    assert "write a rate such as 10/minute" in refused({"on": "*", "run": "a/b", "rate": text})


def test_one_glob_is_a_list_of_one() -> None:
    assert spec(on="order.*").on == ("order.*",)
    assert spec(on=["a", "b"]).on == ("a", "b")


def test_a_rule_without_do_is_its_own_only_action() -> None:
    alone = spec()
    assert alone.actions == (alone,)
    several = ADAPTER.validate_python({"name": "r", "on": "*", "do": [{"run": "a/b"}, {"resume": {"key": "k"}}]})
    assert [one.run for one in several.actions] == ["a/b", None]


def test_a_rule_known_to_be_wrong_is_looked_through_key_by_key() -> None:
    whole = {"name": "r", "run": "a/b", "after_seconds": 1, "at": "x"}
    assert ADAPTER.validate_python(whole, context=PARTS_ONLY).on is None
    assert "rate" in refused({"rate": "often"}, context=PARTS_ONLY)


@pytest.mark.parametrize(
    ("test", "said"),
    [
        ({"runs": []}, "name `event`, or `events`"),
        ({"event": {}, "events": [{}], "runs": []}, "name `event`, or `events`"),
        ({"event": {}}, "name what must come of it"),
        ({"event": {}, "failed": "colour"}, "failed"),
    ],
)
def test_a_rules_test_names_an_event_and_what_must_come_of_it(test: dict[str, Any], said: str) -> None:
    assert said in refused({"on": "*", "run": "a/b", "tests": [test]})
    assert spec(tests=[{"event": {}, "runs": []}]).tests[0].runs == ()


def test_nothing_changes_once_it_was_read() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        spec().priority = 5
