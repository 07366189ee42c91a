from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from events.errors import RejectedEvent
from events.rule_parts import EVENT_KEYS
from events.template import Expression, TextTemplate, ValueTemplate, view
from events.template_check import Names, TemplateProblem
from tests.unit.events.making import event, json_values

NAMES: Names = {"event": EVENT_KEYS, "events": None}


def scope(data: Any = None, **fields: Any) -> dict[str, Any]:
    seen = view(event(data=data, **fields))
    return {"event": seen, "events": [seen]}


def value_of(source: str, data: Any = None) -> Any:
    return Expression(source, NAMES).value(scope(data))


def rendered(value: JsonValue, data: Any = None) -> JsonValue:
    return ValueTemplate(value, NAMES).render(scope(data))


def problem(source: str) -> str:
    with pytest.raises(TemplateProblem) as caught:
        Expression(source, NAMES)
    return str(caught.value)


def fault(source: str, data: Any = None) -> str:
    with pytest.raises(RejectedEvent) as caught:
        value_of(source, data)
    assert caught.value.code == "template"
    return caught.value.reason


class TestAnExpression:
    @pytest.mark.parametrize(
        ("source", "result"),
        [
            ("event.data.size > 0", True),
            ("event.data['size'] + 1", 13),
            ("event.data.tags[0]", "a"),
            ("event.data.tags[-1]", "b"),
            ("event.data.name[:3]", "sal"),
            ("event.type == 'order.created' and not event.subject", True),
            ("'a' in event.data.tags", True),
            ("event.data.missing is defined", False),
            ("event.data.deep.er.still | default(7)", 7),
            ("'big' if event.data.size > 10 else 'small'", "big"),
            ("event.data.name ~ '-' ~ event.data.size", "sales.csv-12"),
            ("event.data.tags + ['c']", ["a", "b", "c"]),
            ("{'n': event.data.size}", {"n": 12}),
            ("-event.data.size // 5", -3),
            ("2 ** 10 % 1000", 24),
            ("event.source", "shop"),
            ("event.extensions.flag | default(false)", False),
        ],
    )
    def test_gives_its_native_value(self, source: str, result: object) -> None:
        assert value_of(source, {"size": 12, "name": "sales.csv", "tags": ["a", "b"]}) == result

    def test_reads_a_key_where_python_would_read_a_method(self) -> None:
        assert value_of("event.data.items", {"items": [1]}) == [1]

    def test_tells_the_values_behind_its_paths(self) -> None:
        expression = Expression("event.data.size > 0 or event.subject == event.data.nothing or event.data", NAMES)
        said = expression.explain(scope({"size": 0}))
        assert (
            said
            == "event.data.size = 0, event.subject = null, event.data.nothing = (missing), event.data = a mapping of 1"
        )

    def test_names_what_is_missing_and_what_is_near(self) -> None:
        assert "did you mean `size`?" in fault("event.data.sise > 0", {"size": 1})

    @pytest.mark.parametrize("data", [None, 5, "text", [1], True])
    def test_finds_no_key_in_what_is_no_mapping(self, data: object) -> None:
        assert "'size'" in fault("event.data.size > 0", data)

    @pytest.mark.parametrize(
        "source", ["1 / 0", "'a' < 1", "event.data.tags < 3", "event.data + 1", "event.subject | upper", "[][0] + 1"]
    )
    def test_that_cannot_be_worked_out_is_a_fault_of_the_event(self, source: str) -> None:
        assert fault(source, {"tags": []}).startswith(repr(source))


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


class TestAValue:
    @given(json_values)
    def test_of_a_single_expression_keeps_its_type(self, data: JsonValue) -> None:
        result = rendered({"p": "{{ event.data }}"}, data)
        assert isinstance(result, dict)
        assert result["p"] == data
        assert type(result["p"]) is type(data)

    @given(json_values.filter(lambda value: not any(mark in repr(value) for mark in ("{{", "{%", "{#"))))
    def test_without_templates_stays_what_it_is(self, value: JsonValue) -> None:
        assert rendered(value) == value

    @pytest.mark.parametrize("text", ["1", "true", "null", "[1]", "1e3", "{}", "__import__('os')", "'a'"])
    def test_from_an_event_is_never_read_as_code_or_another_type(self, text: str) -> None:
        assert rendered("{{ event.data }}", text) == text
        assert rendered("{{ event.data }}{{ event.data }}", text) == text * 2

    @pytest.mark.parametrize("text", ["{{ event.id }}", "{% if true %}", "{# #}", "{{ 7 * 7 }}"])
    def test_from_an_event_is_never_a_template(self, text: str) -> None:
        assert rendered("{{ event.data }}", text) == text
        assert rendered("a {{ event.data }}", text) == "a " + text

    def test_with_text_around_its_expression_is_text(self) -> None:
        assert rendered(" {{ event.data }}", 5) == " 5"
        assert rendered("{{ event.data }}x", True) == "truex"
        assert rendered("{{ event.data }}: {{ event.subject }}", {"a": [1]}) == '{"a": [1]}: null'

    def test_may_choose_its_text(self) -> None:
        assert rendered("{% if event.data > 1 %}many{% else %}one{% endif %}", 2) == "many"

    @pytest.mark.parametrize(
        "template",
        [
            {"a": "{{ {'__prefect_kind': 'jinja', 'template': 'x'} }}"},
            {"a": ["{{ {('__prefect' ~ '_kind'): 'jinja'} }}"]},
            {"__prefect_kind": "workspace_variable", "variable_name": "secret"},
        ],
    )
    def test_never_carries_what_prefect_would_replace(self, template: JsonValue) -> None:
        with pytest.raises(RejectedEvent) as caught:
            rendered(template)
        assert caught.value.code == "hydration"

    @pytest.mark.parametrize(
        "template", ["{{ {1: 2} }}", "{{ 9223372036854775807 * 4 }}", "{{ event.data.x }}", "{{ 1e308 * 10 }}"]
    )
    def test_that_json_could_not_carry_is_a_fault(self, template: str) -> None:
        with pytest.raises(RejectedEvent) as caught:
            rendered({"a": template}, {})
        assert caught.value.code == "template"


_TOKENS = (
    "event data size name . | ( ) [ ] { } : , ' \" ~ + - * ** / % == < in is not and or if else map select "
    "sort join upper default defined 0 1 99 True none attribute = __class__ events"
)


class TestTheSandbox:
    @pytest.mark.parametrize(
        "source",
        [
            "event.__class__",
            "event['__class__']",
            "event.data.__class__.__mro__",
            "event.data['__init__']['__globals__']",
            "''.__class__",
            "[].__class__.__base__",
            "event.data | attr('__class__')",
            "event.data | map(attribute='__class__') | list",
            "[event.data] | map(attribute='__class__.__mro__') | list",
            "[event.data] | sort(attribute='__class__')",
            "'%s' % event",
            "'{0.__class__}'.format(event)",
            "event.data.keys()",
            "lipsum",
            "cycler",
            "namespace",
            "self.__init__",
            "request",
            "().__class__",
        ],
    )
    def test_leads_to_no_attribute_of_python(self, source: str) -> None:
        with pytest.raises((TemplateProblem, RejectedEvent)):
            Expression(source, NAMES).value(scope({"name": "x"}))

    @pytest.mark.parametrize("key", ["__class__", "__init__", "keys", "get", "mro"])
    def test_reads_such_a_name_from_an_event_as_any_other_key(self, key: str) -> None:
        assert value_of(f"event.data.{key}", {key: "mine"}) == "mine"

    @given(st.text(max_size=40))
    def test_answers_any_source_with_a_problem_a_fault_or_json(self, source: str) -> None:
        with suppress(TemplateProblem, RejectedEvent):
            ValueTemplate("{{ " + source + " }}", NAMES).render(scope({"a": 1}))

    @given(
        st.lists(
            st.sampled_from(_TOKENS.split()),
            max_size=14,
        )
    )
    def test_answers_any_tokens_with_a_problem_a_fault_or_json(self, tokens: list[str]) -> None:
        with suppress(TemplateProblem, RejectedEvent):
            ValueTemplate("{{ " + " ".join(tokens) + " }}", NAMES).render(scope({"size": 1, "name": "x"}))


class TestBounds:
    """Without bounds these take hours, or all memory: none would end within the time that every test has."""

    BIG = "x" * 900_000

    @pytest.mark.parametrize(
        "source",
        [
            "'a' * 999999999",
            "[0] * 999999999",
            "9 ** 9 ** 9",
            "2 ** 99999999",
            "(2 ** 64) ** 64",
            "event.data ~ event.data ~ event.data ~ event.data ~ event.data",
            "[event.data, event.data, event.data, event.data, event.data] | join",
            "event.data | replace('x', event.data)",
            "event.data | list | join(event.data)",
            "event.data | list | map('replace', 'x', event.data) | list",
            "event.data | list | map(attribute='y', default=event.data) | map('length') | sum",
            "event.data | list | select('in', event.data) | list | length",
            "event.data | list | map('default', event.data, true) | map('tojson') | join",
        ],
    )
    def test_hold_however_large_the_event(self, source: str) -> None:
        with suppress(RejectedEvent):
            value_of(source, self.BIG)

    def test_count_every_value_that_is_encoded(self) -> None:
        with pytest.raises(RejectedEvent, match="steps of work"):
            value_of("event.data | list | map('tojson') | list | length", self.BIG)

    def test_do_not_trouble_ordinary_work(self) -> None:
        rows = [{"n": index, "name": f"row {index}"} for index in range(10_000)]
        assert value_of("event.data | map(attribute='n') | sum", rows) == sum(range(10_000))
        assert len(value_of("event.data | selectattr('n', 'even') | map(attribute='name') | list", rows)) == 5000

    def test_stop_a_text_that_grows_too_long(self) -> None:
        with pytest.raises(RejectedEvent):
            TextTemplate("{{ event.data }}" * 6, NAMES).render(scope(self.BIG))
