"""What a contract asks of values beyond their type: which break it, and with what words."""

from __future__ import annotations

from datetime import date
from typing import Any

import pyarrow as pa
import pytest

from sluice.loading.columns.constraints import FieldChecks
from sluice.loading.contracts.contract import ContractField

TYPES = {
    "string": pa.string(), "integer": pa.int64(), "number": pa.float64(), "date": pa.date32(), "boolean": pa.bool_(),
    "datetime": pa.timestamp("us"),
}  # fmt: skip


def checks(type_: str, /, *, key: bool = False, **constraints: Any) -> FieldChecks:
    field = ContractField.model_validate({"name": "x", "type": type_, "constraints": constraints})
    return FieldChecks(field, TYPES[type_], key=key)


def bad(type_: str, values: list[Any], /, **constraints: Any) -> list[tuple[int, str]]:
    """The places of the values that break the constraints, and why."""
    column = pa.array(values, TYPES[type_])
    return [
        (place, reason)
        for mask, reason in checks(type_, **constraints).bad(column)
        for place, wrong in enumerate(mask.to_pylist())
        if wrong
    ]


@pytest.mark.parametrize(
    ("constraint", "wrong", "reason"),
    [
        ({"minimum": 2}, [0], "is below 2"),
        ({"maximum": 2}, [2], "is above 2"),
        ({"exclusiveMinimum": 2}, [0, 1], "is not above 2"),
        ({"exclusiveMaximum": 2}, [1, 2], "is not below 2"),
        ({"minimum": "2"}, [0], "is below 2"),
        ({"enum": [1, 3]}, [1], "is none of 1, 3"),
        ({"pattern": "[12]"}, [2], "does not fit the pattern [12]"),
    ],
)
def test_numbers_are_held_against_their_limits(constraint: dict[str, Any], wrong: list[int], reason: str) -> None:
    assert bad("integer", [1, 2, 3, None], **constraint) == [(place, reason) for place in wrong]


@pytest.mark.parametrize(
    ("constraint", "wrong", "reason"),
    [
        ({"minLength": 2}, [1], "has fewer than 2 characters"),
        ({"maxLength": 2}, [2], "has more than 2 characters"),
        ({"pattern": "a|b+"}, [0, 2], "does not fit the pattern a|b+"),
        ({"enum": ["a"]}, [0, 2], "is none of a"),
    ],
)
def test_texts_are_counted_in_characters_and_fit_as_a_whole(
    constraint: dict[str, Any], wrong: list[int], reason: str
) -> None:
    assert bad("string", ["äö", "a", "abb", None], **constraint) == [(place, reason) for place in wrong]


def test_days_have_limits_too() -> None:
    found = bad("date", [date(2024, 1, 1), date(2023, 12, 31)], minimum="2024-01-01")
    assert found == [(1, "is below 2024-01-01")]
    assert bad("datetime", [0], minimum="1970-01-01T00:00:01") == [(0, "is below 1970-01-01 00:00:01")]


def test_a_missing_value_breaks_only_what_requires_one() -> None:
    assert bad("integer", [None], minimum=2, enum=[2]) == []
    required = (0, "is empty, and the contract requires a value")
    assert bad("string", [None], required=True) == [required]
    assert [reason for _, reason in checks("string", key=True).bad(pa.array([None], pa.string()))] == [required[1]]


def test_a_value_may_break_several_constraints() -> None:
    assert [reason for _, reason in bad("string", ["x"], minLength=2, pattern="a+")] == [
        "does not fit the pattern a+",
        "has fewer than 2 characters",
    ]


def test_a_long_list_of_values_is_cut_in_the_reason() -> None:
    ((_, reason),) = bad("integer", [9], enum=[1, 2, 3, 4, 5, 6])
    assert reason == "is none of 1, 2, 3, 4, 5, …"


@pytest.mark.parametrize("limit", [5, 0, "0", 0.0])
@pytest.mark.parametrize("type_", ["string", "boolean"])
@pytest.mark.parametrize("name", ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"])
def test_a_limit_is_for_numbers_and_times_only(type_: str, name: str, limit: Any) -> None:
    with pytest.raises(ValueError, match="a minimum or maximum is for numbers and times"):
        checks(type_, **{name: limit})


@pytest.mark.parametrize(
    ("type_", "constraint", "said"),
    [
        ("integer", {"minimum": "a"}, "is not an integer"),
        ("integer", {"enum": ["1", "b"]}, "is not an integer"),
        ("date", {"maximum": "2024-02-30"}, "is not a date"),
        ("integer", {"minimum": 1.5}, "is not of the type integer"),
        ("date", {"enum": [5, "2024-01-01"]}, "is not of the type date"),
        ("string", {"pattern": "("}, "the pattern '\\(' cannot be used"),
        ("string", {"pattern": "(?=a)"}, "cannot be used"),
    ],
)
def test_a_constraint_that_cannot_hold_is_refused(type_: str, constraint: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        checks(type_, **constraint)
