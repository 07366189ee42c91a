"""What expressions and templated values become."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from pydantic import JsonValue

from events.errors import RejectedEvent
from events.template import Expression, ValueTemplate
from tests.unit.events.making import NAMES, json_values, scope, value_of


def rendered(value: JsonValue, data: Any = None) -> JsonValue:
    return ValueTemplate(value, NAMES).render(scope(data))


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
