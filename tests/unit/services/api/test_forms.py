"""The form of an answer: what a schema becomes, and what the texts of a form mean."""

from __future__ import annotations

from typing import Any

import pytest

from services.api.forms import answer_of, form_of
from sluice.protocol import form, pause_key

PAUSE = pause_key("w", 1)


def schema(required: tuple[str, ...] = (), **fields: Any) -> dict[str, Any]:
    whole = {"type": "object", "properties": fields, "required": list(required), "additionalProperties": False}
    return form(whole, PAUSE)


def answered(wanted: dict[str, Any], **given: str) -> tuple[dict[str, Any], dict[str, str]]:
    return answer_of(wanted, given, pause=PAUSE)


@pytest.mark.parametrize("required", [("approved",), ()])
def test_yes_and_no_are_offered_and_neither_is_chosen(required: tuple[str, ...]) -> None:
    wanted = schema(required, approved={"type": "boolean", "default": True})
    shown = form_of(wanted, {}, {})
    assert shown.count('type="radio"') == 2
    assert "> Yes</label>" in shown
    assert "> No</label>" in shown
    assert "checked" not in shown
    assert answered(wanted, approved="false") == ({"approved": False}, {})
    assert answered(wanted)[1] == {"approved": "this is needed"}
    assert answered(wanted, approved="maybe")[1].keys() == {"approved"}


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ({"type": "integer"}, "7", 7),
        ({"type": "number"}, "7", 7),
        ({"type": "number"}, "0.5", 0.5),
        ({"type": "string"}, " as it is ", " as it is "),
        ({"type": "array", "items": {"type": "integer"}}, "[1, 2]", [1, 2]),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "7", 7),
        ({"enum": ["a", 1]}, "1", 1),
        ({"enum": ["a", 1]}, '"a"', "a"),
        ({}, '{"free": true}', {"free": True}),
    ],
)
def test_a_text_becomes_what_the_field_wants(field: dict[str, Any], text: str, value: Any) -> None:
    wanted = schema(field=field)
    assert answered(wanted, field=text) == ({"field": value}, {})
    assert 'name="field"' in form_of(wanted, {}, {})


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ({"type": "integer"}, "7.5"),
        ({"type": "integer", "maximum": 5}, "7"),
        ({"type": "number"}, "nan"),
        ({"type": "number"}, "1e999"),
        ({"type": "array"}, "no JSON"),
        ({"enum": ["a", 1]}, "b"),
        ({"type": "string", "pattern": "^x"}, "y"),
    ],
)
def test_what_does_not_fit_is_told_at_its_field(field: dict[str, Any], text: str) -> None:
    value, faults = answered(schema(field=field), field=text)
    assert faults.keys() == {"field"}, value
    assert 'role="alert"' in form_of(schema(field=field), {"field": text}, faults)


def test_what_is_needed_is_asked_for_and_the_rest_may_be_left_out() -> None:
    wanted = schema(("a",), a={"type": "string"}, b={"type": "integer", "default": 5})
    assert answered(wanted)[1] == {"a": "this is needed"}
    assert answered(wanted, a="x", b="") == ({"a": "x"}, {})


def test_names_and_texts_of_a_schema_are_no_html() -> None:
    evil = "<script>alert(1)</script>"
    wanted = schema(**{'"><b>': {"type": "string", "title": evil, "description": evil, "default": evil}})
    shown = form_of(wanted, {}, {'"><b>': evil})
    assert "<script" not in shown
    assert "<b>" not in shown
