"""Prefect's reasons for refusing an answer, in words."""

from __future__ import annotations

from typing import Any

import pytest
from prefect.utilities.schema_tools import ValidationError, validate

from services.prefect_api.refusals import explained, names_another_wait
from sluice.protocol import addressed, form

FORM = form(
    {
        "type": "object",
        "properties": {"approved": {"type": "boolean"}, "by": {"type": "string"}},
        "required": ["approved"],
        "additionalProperties": False,
    },
    "p",
)
ALL_DEFAULT = form(
    {"type": "object", "properties": {"approved": {"type": "boolean", "default": True}}, "additionalProperties": False},
    "p",
)
WAIT_P = {"type": "object", "properties": {"wait": {"const": "p"}}, "required": ["wait"]}
NO_FIELDS = form({"type": "object", "properties": {}, "additionalProperties": False}, "p")


@pytest.mark.parametrize(
    ("reason", "value", "schema", "sentence"),
    [
        ("…", {"approved": True, "extra": 1}, FORM, "there is no field 'extra'; it has approved, by"),
        ("…", {"a": 1}, FORM, "there is no field 'a'; it has approved, by; the field 'approved' is missing"),
        ("…", {"approved": 1, "a": 1, "b": 2}, FORM,
            "there is no field 'a'; there is no field 'b'; it has approved, by"),
        ("…", {"by": "ann"}, FORM, "the field 'approved' is missing"),
        ("…", {"n": 1}, NO_FIELDS, "there is no field 'n'; the answer has no fields"),
        ("Validation failed for field 'approved'. Failure reason: 'y' is not one of [True, False]", {"approved": "y"},
            FORM, "the field 'approved': 'y' is not true or false"),
        ("Validation failed. Failure reason: {} is too short", {"approved": True}, FORM, "{} is too short"),
        ("Error hydrating run input: no", {"approved": True}, {}, "Error hydrating run input: no"),
    ],
)  # fmt: skip
def test_a_refusal_names_fields_and_nothing_internal(
    reason: str, value: dict[str, Any], schema: dict[str, Any], sentence: str
) -> None:
    assert explained(reason, addressed(value, pause="p", signal="s", key=None), schema) == sentence


@pytest.mark.parametrize("extra", [{}, {"extra": 1}, {"a'b": 1}])
@pytest.mark.parametrize("schema", [FORM, {"properties": {}, "patternProperties": {"^__sluice__$": WAIT_P}}])
def test_an_answer_for_another_wait_is_known(schema: dict[str, Any], extra: dict[str, Any]) -> None:
    assert names_another_wait(refused({"approved": True, **extra}, schema, pause="another"))


@pytest.mark.parametrize("value", [{"approved": "__sluice__"}, {"approved": True, "extra": 1}, {"by": "__sluice__"}])
def test_an_answer_that_does_not_fit_is_not_taken_for_one_for_another_wait(value: dict[str, Any]) -> None:
    assert not names_another_wait(refused(value, FORM, pause="p"))


@pytest.mark.parametrize(("schema", "field"), [(ALL_DEFAULT, "approved"), (NO_FIELDS, "go_on")])
def test_an_empty_answer_is_refused_with_what_to_send(schema: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError, match=rf"""'an answer, such as {{"{field}": …}}' is a required property"""):
        validate({}, schema, raise_on_error=True)
    validate({field: True}, schema, raise_on_error=True)
    validate(addressed({}, pause="p", signal="s", key=None), schema, raise_on_error=True)


def refused(value: dict[str, Any], schema: dict[str, Any], *, pause: str) -> str:
    """Prefect's reason for refusing the answer."""
    with pytest.raises(ValidationError) as error:
        validate(addressed(value, pause=pause, signal="s", key=None), schema, raise_on_error=True)
    return str(error.value)
