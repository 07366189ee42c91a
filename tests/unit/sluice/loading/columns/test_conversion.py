"""Text as the types that a contract or a table asks for, and what is none of the type."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pyarrow as pa
import pytest

from sluice.loading.columns.conversion import conversion_of, timestamps, to_type
from sluice.loading.columns.converted import Conversion
from sluice.loading.contracts.contract import ContractField

NOON = dt.datetime(2024, 2, 29, 12, 0, 1)  # noqa: DTZ001 - a time without a zone


def of(**field: Any) -> Conversion | None:
    return conversion_of(ContractField.model_validate({"name": "x", **field}))


def taken(conversion: Conversion | None, *texts: str | None) -> list[Any]:
    """The values, and the text itself behind a mark where it is none of the type."""
    assert conversion is not None
    found = conversion(pa.array(texts, pa.string()))
    bad = found.bad.to_pylist() if found.bad is not None else [False] * len(texts)
    assert found.values.type == conversion.type
    return [
        f"not {text}" if wrong else value
        for text, wrong, value in zip(texts, bad, found.values.to_pylist(), strict=True)
    ]


@pytest.mark.parametrize(
    ("field", "texts", "values"),
    [
        ({"type": "boolean"}, ["true", "FALSE", "1", "0", "yes"], [True, False, True, False, "not yes"]),
        ({"type": "boolean", "trueValues": ["ja"], "falseValues": ["nein"]}, ["ja", "true"], [True, "not true"]),
        ({"type": "date"}, ["2024-02-29", "2023-02-29", "20240229", "2024-2-29", "2024-02-29T00:00:00"],
         [dt.date(2024, 2, 29), "not 2023-02-29", "not 20240229", "not 2024-2-29", "not 2024-02-29T00:00:00"]),
        ({"type": "date", "format": "%d.%m.%Y"}, ["29.02.2024", "30.02.2024", "1.3.2024"],
         [dt.date(2024, 2, 29), "not 30.02.2024", dt.date(2024, 3, 1)]),
        ({"type": "time"}, ["12:00", "12:00:01.5", "24:00:00", "12", "12:00:00+01:00"],
         [dt.time(12), dt.time(12, 0, 1, 500_000), "not 24:00:00", "not 12", "not 12:00:00+01:00"]),
        ({"type": "time", "format": "%H.%M"}, ["12.30", "25.00"], [dt.time(12, 30), "not 25.00"]),
        ({"type": "datetime", "format": "%Y-%m-%d %H:%M:%S"}, ["2024-02-29 12:00:01", "2024-02-30 12:00:01"],
         [NOON, "not 2024-02-30 12:00:01"]),
        ({"type": "datetime", "format": "%Y-%m-%dT%H:%M:%S%z"}, ["2024-02-29T13:00:01+01:00"],
         [NOON.replace(tzinfo=dt.UTC)]),
        ({"type": "year"}, ["2024", "-0044", "24", "2024.0"], [2024, -44, "not 24", "not 2024.0"]),
        ({"type": "object"}, ['{"a": NaN}', "{}", "[]", "{"], ['not {"a": NaN}', "{}", "not []", "not {"]),
        ({"type": "array"}, ["[1]", "[" * 100_000], ["[1]", "not " + "[" * 100_000]),
        ({"type": "string", "format": "email"}, ["a@b.c", "a@b c"], ["a@b.c", "not a@b c"]),
        ({"type": "string", "format": "uri"}, ["http://x", "x"], ["http://x", "not x"]),
        ({"type": "string", "format": "uuid"}, ["0f5c81ab-77de-4c1b-9b0e-000000000001", "0f5c81ab"],
         ["0f5c81ab-77de-4c1b-9b0e-000000000001", "not 0f5c81ab"]),
        ({"type": "string"}, [" 007 "], [" 007 "]),
    ],
)  # fmt: skip
def test_a_field_takes_what_is_of_its_type(field: dict[str, Any], texts: list[str], values: list[Any]) -> None:
    assert taken(of(**field), *texts, None) == [*values, None]


def test_a_field_of_any_type_is_looked_at_first() -> None:
    assert of(type="any") is None
    assert of(type="datetime") is None


def test_a_moment_has_an_offset_where_the_column_has_a_zone() -> None:
    aware, plain = timestamps(pa.timestamp("us", "UTC")), timestamps(pa.timestamp("us"))
    assert taken(aware, "2024-02-29T13:00:01+01:00", "2024-02-29T12:00:01") == [
        NOON.replace(tzinfo=dt.UTC), "not 2024-02-29T12:00:01"
    ]  # fmt: skip
    assert taken(plain, "2024-02-29T12:00:01", "2024-02-29T12:00:01Z") == [NOON, "not 2024-02-29T12:00:01Z"]
    assert ("+01:00" in aware.reason, "without an offset" in plain.reason) == (True, True)


@pytest.mark.parametrize(
    ("type_", "text", "value", "wrong"),
    [
        (pa.string(), "007", "007", None),
        (pa.int32(), "7", 7, "007"),
        (pa.float64(), "1.5", 1.5, "1.50"),
        (pa.bool_(), "t", True, "yes"),
        (pa.date32(), "2024-02-29", dt.date(2024, 2, 29), "29.02.2024"),
        (pa.time64("us"), "12:00", dt.time(12), "noon"),
        (pa.timestamp("us"), "2024-02-29T12:00:01", NOON, "2024"),
    ],
)
def test_a_column_of_a_table_takes_what_gives_its_text_back(
    type_: pa.DataType, text: str, value: Any, wrong: str | None
) -> None:
    assert taken(to_type(type_), text) == [value]
    if wrong is not None:
        assert taken(to_type(type_), text, wrong) == [value, f"not {wrong}"]


def test_a_column_of_another_type_takes_no_text() -> None:
    assert taken(to_type(pa.binary()), "a") == ["not a"]
    assert "no value for a column of binary" in to_type(pa.binary()).reason
