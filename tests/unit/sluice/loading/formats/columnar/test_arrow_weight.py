"""What stands for many copies of one value is counted as those copies."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from sluice.budgets import Budget
from sluice.errors import OverBudget
from sluice.loading.errors import RefusedFile
from sluice.loading.formats.columnar.arrow_weight import light_batches
from sluice.loading.reading.source import members
from tests.unit.sluice.loading.formats.columnar.files import EVERY_FORMAT, WRITE, arrow_file
from tests.unit.sluice.loading.readings import refusal


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


def weighed(path: Path, batch: pa.RecordBatch, **budget: int) -> list[int]:
    """The sizes of the batches that the rows come in."""
    arrow_file(path, pa.table({"n": [1]}))
    with path.open("rb") as file:
        (member,) = members(file, path.name, Budget(expansion_ratio=10**6, **budget))
        return [one.num_rows for one in light_batches(iter([batch]), member)]


def test_rows_come_in_pieces_that_are_light_enough(tmp_path: Path) -> None:
    batch = pa.record_batch({"s": ["x" * 1000] * 8})
    assert weighed(tmp_path / "x.arrow", batch) == [8]
    assert weighed(tmp_path / "x.arrow", batch, line_bytes=2500) == [2, 2, 2, 2]
    assert weighed(tmp_path / "x.arrow", batch.slice(0, 0)) == []


def test_a_row_that_is_too_heavy_is_refused_with_its_number(tmp_path: Path) -> None:
    batch = pa.record_batch({"s": ["x", "x", "x" * 1000]})
    with pytest.raises(OverBudget, match=r"x\.arrow, row 3 has"):
        weighed(tmp_path / "x.arrow", batch, line_bytes=500)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[["x" * 1000]]]),
        pa.array([{"a": {"b": "x" * 1000}}]),
        pa.array([[("k", "x" * 1000)]], pa.map_(pa.string(), pa.string())),
        pa.array([["x" * 1000]], pa.list_(pa.string(), 1)),
        pa.array(["x" * 1000]).dictionary_encode(),
    ],
)
def test_texts_at_any_depth_are_weighed(tmp_path: Path, column: pa.Array) -> None:
    with pytest.raises(OverBudget, match="line_bytes"):
        weighed(tmp_path / "x.arrow", pa.record_batch({"c": column}), line_bytes=900)


def test_a_type_that_cannot_be_weighed_is_refused(tmp_path: Path) -> None:
    column = pa.RunEndEncodedArray.from_arrays(pa.array([2], pa.int32()), pa.array(["x"]))
    with pytest.raises(RefusedFile, match="which is not supported: cast it"):
        weighed(tmp_path / "x.arrow", pa.record_batch({"c": column}))
