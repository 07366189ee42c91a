"""What is wrong with a template is found before any event, and so is what it reads."""

from __future__ import annotations

import pytest
from jinja2 import nodes

from events.sandbox import ENVIRONMENT
from events.template import Expression, TextTemplate, ValueTemplate
from events.template_check import CONCAT, SLICE, TemplateProblem, check, narrowed
from tests.unit.events.making import NAMES


def problem(source: str) -> str:
    with pytest.raises(TemplateProblem) as caught:
        Expression(source, NAMES)
    return str(caught.value)


class TestAProblemFoundBeforeAnyEvent:
    @pytest.mark.parametrize(
        ("source", "said"),
        [
            ("event.sbject", "did you mean `event.subject`?"),
            ("evnt.data", "did you mean `event`?"),
            ("event.data.name | uper", "did you mean `upper`?"),
            ("event.data.name is strin", "did you mean `string`?"),
            ("event.data.tags | map('uper') | list", "did you mean `upper`?"),
            ("event.data.tags | select('od')", "did you mean `odd`?"),
            ("event.data.tags | selectattr('a', 'od')", "did you mean `odd`?"),
            ("event.data.tags | map(event.type)", "must stand there as text"),
            ("event.data.tags | sort(order=1)", "wrong arguments"),
            ("event.data.tags | join(1, 2, 3)", "wrong arguments"),
            ("event.data.tags | join(*event.data)", "one by one"),
            ("event.data.name.upper()", "nothing can be called"),
            ("range(10)", "nothing can be called"),
            ("1 if event.data", "needs its `else`"),
            ("(1, 2)", "square brackets"),
            ("event.data.size >", "not a Jinja template"),
            ("a b", "not a Jinja template"),
            ("{{ event.data }}", "without {{ }}"),
            ("", "not one expression"),
            ("(" * 2000, "not a Jinja template"),
            ("x" * 9000, "8192"),
        ],
    )
    def test_says_what_to_do(self, source: str, said: str) -> None:
        assert said in problem(source)

    def test_comes_with_all_the_others(self) -> None:
        said = problem("event.sbject ~ evnt ~ (event.data | uper)")
        assert said.count("did you mean") == 3

    @pytest.mark.parametrize(
        "source",
        [
            "{% for x in event.data %}{{ x }}{% endfor %}",
            "{% set a = 1 %}",
            "{% macro m() %}{% endmacro %}",
            "{% include 'a' %}",
            "{% import 'a' as b %}",
            "{% extends 'a' %}",
            "{% block b %}{% endblock %}",
            "{% filter upper %}a{% endfilter %}",
            "{{ self }}",
            "{{ loop }}",
            "{{ varargs }}",
            "{{ config }}",
        ],
    )
    def test_is_every_statement_that_might_not_end_or_reaches_elsewhere(self, source: str) -> None:
        with pytest.raises(TemplateProblem):
            TextTemplate(source, NAMES)

    def test_stands_behind_its_path_in_a_value(self) -> None:
        with pytest.raises(TemplateProblem) as caught:
            ValueTemplate({"a": [1, {"b": "{{ evnt }}"}], "{{ c }}": 1}, NAMES)
        assert [path for path, _ in caught.value.problems] == [("{{ c }}",), ("a", 1, "b")]


def tree(source: str) -> nodes.Template:
    return ENVIRONMENT.parse("{{ " + source + " }}")


class TestPaths:
    @pytest.mark.parametrize(
        ("source", "paths"),
        [
            ("event.data.size", [("event", "data", "size")]),
            ("event['data']['size']", [("event", "data", "size")]),
            ("event.data.rows[0].n", [("event", "data", "rows")]),
            ("event.data[event.type]", [("event", "data"), ("event", "type")]),
            ("event.data.a + event.data.a", [("event", "data", "a")]),
            ("event.subject | default(events)", [("event", "subject"), ("events",)]),
            ("1 + 1", []),
        ],
    )
    def test_are_what_is_read_each_once_and_as_long_as_it_is_known(
        self, source: str, paths: list[tuple[str, ...]]
    ) -> None:
        assert sorted(check(source, tree(source), NAMES)) == sorted(paths)


def test_joining_and_slicing_go_through_what_counts_their_work() -> None:
    whole = narrowed(tree("events ~ event.data[1:] ~ 'x'[::2]"))
    assert not list(whole.find_all((nodes.Concat, nodes.Slice)))
    assert sorted(one.name for one in whole.find_all(nodes.Filter)) == sorted([CONCAT, SLICE, SLICE])
