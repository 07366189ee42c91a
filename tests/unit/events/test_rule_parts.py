"""What is wrong in a rule is found all at once, each problem at its place."""

from __future__ import annotations

from typing import Any

import pytest

from events.rule_parts import RuleProblems
from tests.unit.events.making import rule, running


def problems(**keys: Any) -> dict[tuple[str | int, ...], str]:
    with pytest.raises(RuleProblems) as caught:
        running(**keys)
    return {problem.path: problem.message for problem in caught.value.problems}


class TestProblems:
    def test_are_found_all_at_once_each_at_its_place(self) -> None:
        found = problems(
            on=["ok", "a[b"],
            source="{x",
            when="event.sbject",
            parameters={"a": ["{{ evnt }}"]},
            run_name="{{ event.data",
            tags=["ok", "{{ x }}"],
            dedupe_key="event.id",
            throttle={"per_seconds": 1, "key": "{{ events }}"},
        )
        assert set(found) == {
            ("on", 1),
            ("source",),
            ("when",),
            ("parameters", "a", 0),
            ("run_name",),
            ("tags", 1),
            ("dedupe_key",),
            ("throttle", "key"),
        }
        assert "did you mean `event.subject`?" in found["when",]
        assert 'write "{{ event.id }}"' in found["dedupe_key",]

    def test_name_the_action_that_they_are_in(self) -> None:
        with pytest.raises(RuleProblems) as caught:
            rule(do=[{"run": "a/b"}, {"resume": {"key": "{{ x }}"}}])
        assert caught.value.problems[0].path == ("do", 1, "resume", "key")

    def test_include_variables_that_this_kind_of_rule_does_not_have(self) -> None:
        assert ("parameters", "a") in problems(parameters={"a": "{{ events }}"})
        assert ("parameters", "a") in problems(
            parameters={"a": "{{ joined.paymnt }}"},
            correlate={"all": {"order": "o", "payment": "p"}, "key": "{{ event.id }}", "within_seconds": 1},
        )
