"""Parquet and Arrow: each type comes as one that databases know, and nothing becomes larger than the budget says."""

from __future__ import annotations

import contextlib
import datetime as dt
import gzip
import json
import subprocess
import sys
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from sluice.budgets import Budget
from sluice.errors import OverBudget
from sluice.loading.errors import RefusedFile
from sluice.loading.formats import read
from sluice.loading.formats.columnar.parquet_dictionary import longest_in_dictionary
from sluice.loading.formats.columnar.parquet_index import row_groups
from sluice.loading.reading.source import members
from tests.unit.sluice.loading.reading import refusal, rows, seen, table, written


def parquet(path: Path, content: pa.Table) -> None:
    pq.write_table(content, path)


def arrow_file(path: Path, content: pa.Table) -> None:
    with pa.ipc.new_file(path, content.schema) as writer:
        writer.write_table(content)


def arrow_stream(path: Path, content: pa.Table) -> None:
    with pa.ipc.new_stream(path, content.schema) as writer:
        writer.write_table(content)


def feather(path: Path, content: pa.Table) -> None:
    pyarrow.feather.write_feather(content, path, compression="lz4")


def packed_arrow(path: Path, content: pa.Table) -> None:
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(path, content.schema, options=options) as writer:
        writer.write_table(content)


WRITE: dict[str, Callable[[Path, pa.Table], None]] = {
    "x.parquet": parquet,
    "x.arrow": arrow_file,
    "x.arrows": arrow_stream,
    "x.feather": feather,
    "x.ipc": packed_arrow,
}
EVERY_FORMAT = pytest.mark.parametrize("name", WRITE)

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


@EVERY_FORMAT
@pytest.mark.parametrize("packing", ["", ".gz"])
def test_many_batches_with_dictionaries_come_whole_and_in_order(tmp_path: Path, name: str, packing: str) -> None:
    count = 70_000
    texts = pa.array([f"text {number % 97}" for number in range(count)])
    content = pa.table({"n": pa.array(range(count)), "s": texts, "d": texts.dictionary_encode()})
    WRITE[name](tmp_path / name, pa.concat_tables([content.slice(0, 30_000), content.slice(30_000)]))
    if packing:
        (tmp_path / (name + packing)).write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    found = table(tmp_path / (name + packing))
    assert found.column("n").to_pylist() == list(range(count))
    assert found.column("d").to_pylist() == found.column("s").to_pylist() == texts.to_pylist()


@EVERY_FORMAT
def test_a_table_without_rows_has_its_columns(tmp_path: Path, name: str) -> None:
    WRITE[name](tmp_path / name, pa.table({"a": pa.array([], pa.int64()), "b": pa.array([], pa.string())}))
    assert table(tmp_path / name).column_names == ["a", "b"]


@EVERY_FORMAT
@pytest.mark.parametrize("damage", ["cut", "noise", "text", "empty"])
def test_a_damaged_file_is_refused(tmp_path: Path, name: str, damage: str) -> None:
    path = tmp_path / name
    WRITE[name](path, pa.table({"a": range(10_000), "s": [f"text {number}" for number in range(10_000)]}))
    content = path.read_bytes()
    noise = bytes((byte * 7 + place) % 256 for place, byte in enumerate(content))
    path.write_bytes({"cut": content[: len(content) // 2], "noise": noise, "text": b"a,b\n1,2\n", "empty": b""}[damage])
    assert "readable" in (said := refusal(path)) or "no Arrow file" in said


@EVERY_FORMAT
def test_text_that_is_none_is_refused(tmp_path: Path, name: str) -> None:
    offsets, data = pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")
    broken = pa.Array.from_buffers(pa.string(), 1, [None, offsets, data])
    WRITE[name](tmp_path / name, pa.table({"a": broken}))
    assert "UTF8" in refusal(tmp_path / name)


def test_a_feather_file_of_the_first_version_is_refused(tmp_path: Path) -> None:
    assert "version 1" in refusal(written(tmp_path, "x.feather", b"FEA1" + bytes(100)))


@pytest.mark.parametrize("name", ["x.arrow", "x.arrows", "x.ipc", "x.feather"])
def test_a_record_batch_is_not_unpacked_when_it_is_too_large(tmp_path: Path, name: str) -> None:
    WRITE[name](tmp_path / name, pa.table({"a": [0] * 250_000}))
    assert "block_bytes = 400000" in refusal(tmp_path / name, block_bytes=400_000)
    assert table(tmp_path / name, block_bytes=2_100_000).num_rows == 250_000


@EVERY_FORMAT
def test_one_text_that_stands_for_many_is_counted_as_often_as_it_stands_there(tmp_path: Path, name: str) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array([0] * 500, pa.int32()), pa.array(["x" * 100_000]))
    WRITE[name](tmp_path / name, pa.table({"s": texts}))
    assert "expansion_ratio" in refusal(tmp_path / name)


def test_a_view_of_one_text_is_counted_as_often_as_it_stands_there(tmp_path: Path) -> None:
    text = pa.py_buffer(b"x" * 100_000)
    view = (100_000).to_bytes(4, "little") + b"xxxx" + bytes(8)
    array = pa.Array.from_buffers(pa.string_view(), 500, [None, pa.py_buffer(view * 500), text])
    arrow_file(tmp_path / "x.arrow", pa.table({"s": array}))
    assert "expansion_ratio" in refusal(tmp_path / "x.arrow")


@EVERY_FORMAT
@pytest.mark.parametrize("limit", ["rows", "columns", "cells", "line_bytes", "unpacked_bytes"])
def test_each_limit_holds(tmp_path: Path, name: str, limit: str) -> None:
    WRITE[name](tmp_path / name, pa.table({"a": ["x" * 50] * 10, "b": range(10)}))
    assert f"the budget {limit} = 1 is reached" in refusal(tmp_path / name, **{limit: 1})


def test_nested_values_are_json(tmp_path: Path) -> None:
    parquet(tmp_path / "x.parquet", pa.table({"v": [{"a": [{"b": [None, "ü\n"]}], "c": 1.25}]}))
    (row,) = rows(tmp_path / "x.parquet")
    assert json.loads(row["v"]) == {"a": [{"b": [None, "ü\n"]}], "c": 1.25}


@pytest.mark.parametrize("name", [name for name in WRITE if name != "x.feather"])  # whose writer refuses such names
def test_names_may_be_empty_or_stand_twice(tmp_path: Path, name: str) -> None:
    content = pa.Table.from_arrays([pa.array([1]), pa.array(["a"]), pa.array([2.5])], names=["a", "a", ""])
    WRITE[name](tmp_path / name, content)
    found = table(tmp_path / name)
    assert (found.column_names, [column.to_pylist() for column in found.columns]) == (
        ["a", "a", ""],
        [[1], ["a"], [2.5]],
    )


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "brotli", "lz4"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_the_longest_text_of_a_dictionary_is_known_before_it_is_put_in_its_places(
    tmp_path: Path, compression: str, version: str
) -> None:
    path = tmp_path / "x.parquet"
    texts = [f"text {number}" for number in range(1000)] + ["x" * 70_000] * 300
    content = pa.table({"dictionary": texts, "plain": [f"{number}" * 9 for number in range(1300)]})
    pq.write_table(content, path, compression=compression, data_page_version=version, use_dictionary=["dictionary"])
    with path.open("rb") as file:
        (member,) = members(file, path.name, Budget())
        with member.open_seekable() as stream:
            (group,) = row_groups(stream, 2, "x")
            assert [longest_in_dictionary(stream, chunk, member) for chunk in group.chunks] == [70_000, 0]
    assert table(path, expansion_ratio=10_000).equals(content)


def test_few_rows_are_read_at_once_where_a_dictionary_holds_a_long_text(tmp_path: Path) -> None:
    parquet(tmp_path / "x.parquet", pa.table({"s": ["x" * 1_000_000] * 200}))
    with (tmp_path / "x.parquet").open("rb") as file:
        (member,) = members(file, "x.parquet", Budget(expansion_ratio=10**6))
        sizes = [batch.rows.num_rows for batch in read(member).batches()]
    assert (max(sizes), sum(sizes)) == (16, 200)
    assert "line_bytes" in refusal(tmp_path / "x.parquet", line_bytes=900_000)


@pytest.mark.parametrize("name", [name for name in WRITE if name != "x.parquet"])
def test_no_changed_byte_of_a_file_is_told_in_other_words_than_a_refusal(tmp_path: Path, name: str) -> None:
    content = pa.table({"a": range(50), "s": [f"text {number % 7}" for number in range(50)], "l": [[1, None]] * 50})
    WRITE[name](tmp_path / name, content)
    whole = (tmp_path / name).read_bytes()
    for place in range(0, len(whole), 7):
        changed = written(tmp_path, name, whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with contextlib.suppress(RefusedFile, OverBudget), changed.open("rb") as file:
            (member,) = members(file, name, Budget())
            for batch in read(member).batches():
                batch.rows.to_pylist()


_READ_EACH_CHANGED = """
import sys
from pathlib import Path
from sluice.budgets import Budget
from sluice.loading.errors import RefusedFile
from sluice.errors import OverBudget
from sluice.loading.formats import read
from sluice.loading.reading.source import members

path = Path(sys.argv[1])
whole = path.read_bytes()
for place in range(len(whole) - 8 - int.from_bytes(whole[-8:-4], "little"), len(whole)):
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 32]) + whole[place + 1:])
    with path.open("rb") as file:
        try:
            for batch in read(*members(file, path.name, Budget())).batches():
                batch.rows.to_pylist()
        except (RefusedFile, OverBudget):
            pass
print("read")
"""


def test_no_index_of_a_parquet_file_ends_the_process(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [1], "s": ["x"]}), tmp_path / "x.parquet", store_schema=False)
    command = [sys.executable, "-c", _READ_EACH_CHANGED, str(tmp_path / "x.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "read\n"), done.stderr


def test_the_index_is_read_as_arrow_reads_it(tmp_path: Path) -> None:
    columns = {f"c{number}": pa.array([[number, None]] * 60) for number in range(20)} | {
        "b": [True] * 60,
        "t": ["x"] * 60,
    }
    pq.write_table(
        pa.table(columns), tmp_path / "x.parquet", row_group_size=3, write_page_index=True, compression="zstd"
    )
    index = pq.ParquetFile(tmp_path / "x.parquet").metadata
    with (tmp_path / "x.parquet").open("rb") as stream:
        found = row_groups(stream, 22, "x")
    for number, group in enumerate(found):
        there = index.row_group(number)
        assert (group.rows, group.unpacked) == (there.num_rows, there.total_byte_size)
        for place, chunk in enumerate(group.chunks):
            one = there.column(place)
            assert (chunk.values, chunk.packed, chunk.unpacked) == (
                one.num_values, one.total_compressed_size, one.total_uncompressed_size
            )  # fmt: skip
    assert (len(found), found[0].chunks[0].codec) == (20, 6)


@pytest.mark.parametrize("name", list(WRITE))
def test_several_files_put_one_behind_the_other_are_refused(tmp_path: Path, name: str) -> None:
    path, other = tmp_path / name, tmp_path / f"other-{name}"
    WRITE[name](path, pa.table({"n": [1, 2, 3]}))
    WRITE[name](other, pa.table({"n": [7, 8, 9]}))
    path.write_bytes(path.read_bytes() + other.read_bytes())
    assert "one behind the other" in refusal(path)


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
