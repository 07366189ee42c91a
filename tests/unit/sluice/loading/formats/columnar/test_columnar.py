"""Every columnar format: rows come whole and in order, and what cannot be read is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pytest

from tests.unit.sluice.loading.formats.columnar.files import EVERY_FORMAT, WRITE
from tests.unit.sluice.loading.readings import refusal, table


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


@EVERY_FORMAT
@pytest.mark.parametrize("limit", ["rows", "columns", "cells", "line_bytes", "unpacked_bytes"])
def test_each_limit_holds(tmp_path: Path, name: str, limit: str) -> None:
    WRITE[name](tmp_path / name, pa.table({"a": ["x" * 50] * 10, "b": range(10)}))
    assert f"the budget {limit} = 1 is reached" in refusal(tmp_path / name, **{limit: 1})


@pytest.mark.parametrize("name", [name for name in WRITE if name != "x.feather"])  # whose writer refuses such names
def test_names_may_be_empty_or_stand_twice(tmp_path: Path, name: str) -> None:
    content = pa.Table.from_arrays([pa.array([1]), pa.array(["a"]), pa.array([2.5])], names=["a", "a", ""])
    WRITE[name](tmp_path / name, content)
    found = table(tmp_path / name)
    assert (found.column_names, [column.to_pylist() for column in found.columns]) == (
        ["a", "a", ""],
        [[1], ["a"], [2.5]],
    )


@pytest.mark.parametrize("name", list(WRITE))
def test_several_files_put_one_behind_the_other_are_refused(tmp_path: Path, name: str) -> None:
    path, other = tmp_path / name, tmp_path / f"other-{name}"
    WRITE[name](path, pa.table({"n": [1, 2, 3]}))
    WRITE[name](other, pa.table({"n": [7, 8, 9]}))
    path.write_bytes(path.read_bytes() + other.read_bytes())
    assert "one behind the other" in refusal(path)
