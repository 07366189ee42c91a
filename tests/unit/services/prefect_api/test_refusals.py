"""Prefect's reasons for refusing an answer, in words."""

from __future__ import annotations

from typing import Any

import pytest

from services.prefect_api.refusals import explained
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
        ("Validation failed for field 'approved'. Failure reason: 'yes' is not of type 'boolean'", {"approved": "yes"},
            FORM, "the field 'approved': 'yes' is not of type 'boolean'"),
        ("Validation failed. Failure reason: {} is too short", {"approved": True}, FORM, "{} is too short"),
        ("Error hydrating run input: no", {"approved": True}, {}, "Error hydrating run input: no"),
    ],
)  # fmt: skip
def test_a_refusal_names_fields_and_nothing_internal(
    reason: str, value: dict[str, Any], schema: dict[str, Any], sentence: str
) -> None:
    assert explained(reason, addressed(value, pause="p", signal="s", key=None), schema) == sentence
