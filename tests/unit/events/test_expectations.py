from __future__ import annotations

from typing import Any

import pytest

from events.expectations import run_tests
from tests.unit.events.making import rule, running


def failures(test: dict[str, Any], **keys: Any) -> list[str]:
    defaults = {"on": "order.created", "when": "event.data.id > 0", "parameters": {"id": "{{ event.data.id }}"}}
    return [problem.message for problem in run_tests(running(**{**defaults, **keys, "tests": [test]}))]


@pytest.mark.parametrize(
    "test",
    [
        {"event": {"data": {"id": 1}}, "runs": [{"run": "flow/deployment", "parameters": {"id": 1}}]},
        {"event": {"data": {"id": 1}}, "runs": [{"run": "flow/deployment"}], "resumes": []},
        {"event": {"data": {"id": 0}}, "runs": []},
        {"event": {"data": {"id": 0}}, "failed": "when"},
        {"event": {"type": "other"}, "failed": "type"},
    ],
)
def test_a_test_that_holds_says_nothing(test: dict[str, Any]) -> None:
    assert failures(test) == []


@pytest.mark.parametrize(
    ("test", "said"),
    [
        (
            {"event": {"data": {"id": 2}}, "runs": [{"run": "flow/deployment", "parameters": {"id": 1}}]},
            "parameters is {'id': 2}",
        ),
        ({"event": {"data": {"id": 2}}, "runs": [{"run": "a/b"}]}, "run is 'flow/deployment', expected 'a/b'"),
        ({"event": {"data": {"id": 2}}, "runs": []}, "0 expected of `run`, 1 found"),
        ({"event": {"data": {"id": 2}}, "resumes": [{"key": "k"}]}, "1 expected of `resume`, 0 found"),
        ({"event": {"data": {"id": 0}}, "runs": [{"run": "flow/deployment"}]}, "event.data.id = 0"),
        ({"event": {"data": {"id": 2}}, "failed": "when"}, "`when` should have failed"),
        ({"event": {"data": {"id": 0}}, "failed": "type"}, "when: "),
        ({"event": {"data": {"id": 2}}, "error": "no key"}, "nothing went wrong"),
        ({"event": {"data": {"id": 2}, "nonsense!": 1}, "runs": []}, "nonsense!"),
    ],
)
def test_a_test_that_fails_says_why(test: dict[str, Any], said: str) -> None:
    (message,) = failures({"name": "mine", **test})
    assert message.startswith("the test 'mine' failed: ")
    assert said in message


def test_an_error_may_be_what_is_expected() -> None:
    test = {"event": {"data": {"id": 1}}, "error": "no key 'x'"}
    assert failures(test, parameters={"x": "{{ event.data.x }}"}) == []


def test_a_disabled_rule_is_tested_as_if_it_were_enabled() -> None:
    assert failures({"event": {"data": {"id": 1}}, "runs": [{"run": "flow/deployment"}]}, enabled=False) == []


def test_a_rule_that_gathers_is_given_several_events() -> None:
    gathering = running(
        on="m.*",
        batch={"max_events": 5, "max_wait_seconds": 1},
        parameters={"rows": "{{ events | map(attribute='data') }}"},
        tests=[
            {
                "events": [{"type": "m.a", "data": 1}, {"type": "m.b", "data": 2}],
                "runs": [{"run": "flow/deployment", "parameters": {"rows": [1, 2]}}],
            }
        ],
    )
    assert run_tests(gathering) == []


def test_kinds_that_belong_together_must_all_be_there() -> None:
    correlate = {"all": {"order": "o", "payment": "p"}, "key": "{{ event.subject }}", "within_seconds": 1}
    one, other = {"type": "o", "subject": "1"}, {"type": "p", "subject": "1"}
    tests = [{"events": [one, other], "runs": [{"run": "flow/deployment"}]}, {"events": [one], "runs": []}]
    problems = run_tests(running(correlate=correlate, tests=tests))
    assert [problem.path for problem in problems] == [("tests", 1)]
    assert "no event of the kind 'payment'" in problems[0].message


def test_resumes_are_expected_like_runs() -> None:
    compiled = rule(
        on="a",
        resume={"key": "k-{{ event.data }}", "input": {"x": 1}},
        tests=[{"event": {"data": 5}, "resumes": [{"key": "k-5", "input": {"x": 1}}]}],
    )
    assert run_tests(compiled) == []
