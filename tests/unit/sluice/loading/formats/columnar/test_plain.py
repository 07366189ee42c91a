"""The types that databases know, for each type of Parquet and Arrow."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.unit.sluice.loading.formats.columnar.files import EVERY_FORMAT, WRITE, parquet
from tests.unit.sluice.loading.readings import refusal, rows, seen, table

NOW = dt.datetime.fromisoformat("2024-05-06T07:08:09.123456")


@EVERY_FORMAT
@pytest.mark.parametrize(
    ("column", "type_", "values"),
    [
        (pa.array([1, None], pa.int8()), pa.int64(), [1, None]),
        (pa.array([1, 2**32 - 1], pa.uint32()), pa.int64(), [1, 2**32 - 1]),
        (pa.array([1, None], pa.uint64()), pa.int64(), [1, None]),
        (pa.array([1, 2**64 - 1], pa.uint64()), pa.decimal128(20, 0), [Decimal(1), Decimal(2**64 - 1)]),
        (pa.array([0.5, None], pa.float32()), pa.float64(), [0.5, None]),
        (pa.array([True, None]), pa.bool_(), [True, None]),
        (pa.array([Decimal("1.10")], pa.decimal128(5, 2)), pa.decimal128(5, 2), [Decimal("1.10")]),
        (pa.array([Decimal("1.10")], pa.decimal256(60, 2)), pa.string(), ["1.10"]),
        (pa.array(["ä", None], pa.large_string()), pa.string(), ["ä", None]),
        (pa.array(["ä", None, "ä"]).dictionary_encode(), pa.string(), ["ä", None, "ä"]),
        (pa.array([1, None, 1]).dictionary_encode(), pa.int64(), [1, None, 1]),
        (pa.array([b"\xff", None], pa.large_binary()), pa.binary(), [b"\xff", None]),
        (pa.array([b"\xff\x00"], pa.binary(2)), pa.binary(), [b"\xff\x00"]),
        (pa.array([None, None], pa.null()), pa.string(), [None, None]),
        (pa.array([NOW.date()]), pa.date32(), [NOW.date()]),
        (pa.array([NOW], pa.timestamp("us")), pa.timestamp("us"), [NOW]),
        (pa.array([NOW], pa.timestamp("ns")), pa.timestamp("us"), [NOW]),
        (pa.array([NOW], pa.timestamp("us", "UTC")), pa.timestamp("us", "UTC"), [NOW.replace(tzinfo=dt.UTC)]),
        (pa.array([1], pa.timestamp("ns")), pa.string(), ["1970-01-01T00:00:00.000000001"]),
        (pa.array([NOW.time()], pa.time64("us")), pa.time64("us"), [NOW.time()]),
        (pa.array([1], pa.time64("ns")), pa.string(), ["00:00:00.000000001"]),
        (pa.array([3600, -90, None], pa.duration("s")), pa.string(), ["PT3600S", "-PT90S", None]),
        (pa.array([1_500, 1], pa.duration("ms")), pa.string(), ["PT1.5S", "PT0.001S"]),
        (pa.array([1], pa.duration("ns")), pa.string(), ["PT0.000000001S"]),
        (pa.array([[1, None], None], pa.list_(pa.int64())), pa.string(), ["[1, null]", None]),
        (pa.array([[1, 2]], pa.list_(pa.float64(), 2)), pa.string(), ["[1.0, 2.0]"]),
        (pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())), pa.string(), ['[["k", 1]]']),
        (
            pa.array([{"b": b"\xff", "d": dt.timedelta(hours=1), "n": Decimal("1.50")}]),
            pa.string(),
            ['{"b": "/w==", "d": "PT3600S", "n": 1.50}'],
        ),
        (
            pa.array([{"t": 1, "l": [1]}], pa.struct([("t", pa.timestamp("ns")), ("l", pa.list_(pa.time64("ns")))])),
            pa.string(),
            ['{"t": "1970-01-01 00:00:00.000000001", "l": ["00:00:00.000000001"]}'],
        ),
        (pa.array([uuid.UUID(int=7).bytes], pa.uuid()), pa.string(), [str(uuid.UUID(int=7))]),
    ],
)  # fmt: skip
def test_every_type_comes_as_one_that_databases_know(
    tmp_path: Path, name: str, column: pa.Array, type_: pa.DataType, values: list[Any]
) -> None:
    WRITE[name](tmp_path / name, pa.table({"c": column}))
    found = table(tmp_path / name)
    assert (found.schema.field("c").type, found.column("c").to_pylist()) == (type_, values)


@pytest.mark.parametrize("name", ["x.arrow", "x.arrows", "x.ipc"])
@pytest.mark.parametrize("kind", [pa.string_view(), pa.binary_view(), pa.float16()])
def test_types_that_only_arrow_has(tmp_path: Path, name: str, kind: pa.DataType) -> None:
    value = 1.5 if kind == pa.float16() else "a text of more than twelve bytes" if kind == pa.string_view() else b"\xff"
    WRITE[name](tmp_path / name, pa.table({"c": pa.array([None, value, value], kind)}).slice(1))
    assert rows(tmp_path / name) == [{"c": value}, {"c": value}]


def test_an_interval_and_a_decimal_without_its_last_digits(tmp_path: Path) -> None:
    path = tmp_path / "x.arrow"
    for values, shown in (
        (pa.array([Decimal(12300)], pa.decimal128(5, -2)), None),
        (
            pa.array([(1, 2, 3)], pa.month_day_nano_interval()),
            "of the Arrow type month_day_nano_interval, which is not",
        ),
    ):
        batch = pa.record_batch({"v": values})
        with pa.ipc.new_file(path, batch.schema) as file:
            file.write(batch)
        if shown is None:
            assert [str(row["v"]) for row in rows(path)] == ["12300"]
        else:
            assert shown in refusal(path)


@EVERY_FORMAT
def test_numbers_that_are_none_are_told(tmp_path: Path, name: str) -> None:
    content = pa.table({"x": [1.5, float("nan"), float("inf"), None], "y": [1.0, 2.0, 3.0, 4.0]})
    WRITE[name](tmp_path / name, content)
    assert seen(tmp_path / name)[2].evidence["values that are no number"] == {"x": 2}
    nan = float("nan")
    pairs = pa.array([[("k", nan)], None], pa.map_(pa.string(), pa.float64()))
    nested = {"l": [[nan, 1.0], [nan]], "s": [{"a": [{"b": nan}]}, {"a": None}], "m": pairs, "y": [[1.0], None]}
    WRITE[name](tmp_path / name, pa.table(nested))
    assert seen(tmp_path / name)[2].evidence["values that are no number"] == {"l": 2, "s": 1, "m": 1}


@EVERY_FORMAT
def test_moments_of_any_time_zone_are_in_utc(tmp_path: Path, name: str) -> None:
    WRITE[name](tmp_path / name, pa.table({"at": pa.array([0], pa.timestamp("us", "Europe/Berlin"))}))
    assert table(tmp_path / name).schema.field("at").type == pa.timestamp("us", "UTC")


def test_nested_values_are_json(tmp_path: Path) -> None:
    parquet(tmp_path / "x.parquet", pa.table({"v": [{"a": [{"b": [None, "ü\n"]}], "c": 1.25}]}))
    (row,) = rows(tmp_path / "x.parquet")
    assert json.loads(row["v"]) == {"a": [{"b": [None, "ü\n"]}], "c": 1.25}


@pytest.mark.parametrize("name", ["x.parquet", "x.arrow"])
@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([None, 11_248_737, 11_248_738], pa.date32()),
        ([None, -12_687_428 * 86_400_000, -12_687_429 * 86_400_000], pa.date64()),
        ([None, 0, 2**62], pa.timestamp("us")),
        ([None, 0, -(2**40)], pa.timestamp("s", "UTC")),
        ([None, [0], [0, 2**62]], pa.list_(pa.timestamp("ms"))),
        ([None, {"at": 0}, {"at": -(2**62)}], pa.struct([("at", pa.timestamp("us"))])),
        ([None, [("a", 0)], [("b", 2**62)]], pa.map_(pa.string(), pa.timestamp("us"))),
    ],
)
def test_a_day_of_which_arrow_would_make_words_is_refused(
    tmp_path: Path, name: str, values: list[Any], kind: pa.DataType
) -> None:
    path = tmp_path / name
    if not pa.types.is_nested(kind):
        content = pa.array([*values], pa.int32() if kind == pa.date32() else pa.int64()).cast(kind)
    else:
        content = pa.array(values, kind)
    WRITE[name](path, pa.table({"day": content}))
    assert "row 3, column 'day': the value lies outside the years -32767 to 32767" in refusal(path)
    WRITE[name](path, pa.table({"day": content[:2]}))
    assert table(path).num_rows == 2
