"""Rows looked at one by one: the good ones converted, the bad ones with their place and the reason."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from sluice.loading.checking.checked_batch import CheckedBatch, Repeats, check_batch
from sluice.loading.columns.load_column import LoadColumn
from sluice.loading.contracts.contract import ContractField
from sluice.loading.reading.batch import BadRow, RowBatch


def column(name: str, **field: Any) -> LoadColumn:
    return LoadColumn(name, ContractField.model_validate({"name": name, **field}), typed=False)


def columns() -> list[LoadColumn]:
    return [column("n", type="integer", constraints={"minimum": 1}), column("s", type="string")]


def checked(n: list[str | None], s: list[str | None], first_row: int = 0, **more: Any) -> CheckedBatch:
    lines = more.pop("lines", None)
    bad = more.pop("bad", ())
    batch = pa.record_batch({"n": pa.array(n, pa.string()), "s": pa.array(s, pa.string())})
    return check_batch(more.pop("columns", columns()), RowBatch(batch, lines, bad), first_row, **more)


def test_good_rows_are_converted_and_counted_from_the_beginning_of_the_file() -> None:
    found = checked(["1", "2"], ["a", None], first_row=10)
    assert found.good.to_pylist() == [{"n": 1, "s": "a"}, {"n": 2, "s": None}]
    assert (found.rows, found.places().to_pylist(), found.bad) == (range(10, 12), [11, 12], [])
    assert found.refused.num_rows == 0


def test_bad_rows_are_left_out_with_value_and_reason() -> None:
    found = checked(["1", "x", "0", "4"], ["a", "b", "c", "d"], first_row=10)
    assert found.good.to_pylist() == [{"n": 1, "s": "a"}, {"n": 4, "s": "d"}]
    assert found.bad == [
        BadRow(12, "n", "x", "is not an integer of 64 bits"), BadRow(13, "n", "0", "is below 1")
    ]  # fmt: skip
    assert found.refused.to_pylist() == [{"n": "x", "s": "b"}, {"n": "0", "s": "c"}]
    assert (found.rows.to_pylist(), found.places().to_pylist()) == ([10, 13], [11, 14])


def test_rows_have_the_lines_that_the_reader_knows() -> None:
    found = checked(["1", "x"], ["a", "b"], lines=lambda: pa.array([5, 9], pa.int64()))
    assert [one.line for one in found.bad] == [9]
    assert found.places().to_pylist() == [5]


def test_without_constraints_values_are_only_converted() -> None:
    assert checked(["0"], ["a"], constraints=False).bad == []
    assert len(checked(["x"], ["a"], constraints=False).bad) == 1


def test_what_the_reader_found_bad_stays_bad_and_comes_last() -> None:
    stray = BadRow(7, None, None, "3 fields where the header names 2", ("1", "2", "3"))
    assert checked(["1"], ["a"], bad=(stray,)).bad == [stray]
    found = checked(["x"], ["a"], bad=(stray,))
    assert [one.reason for one in found.bad] == ["is not an integer of 64 bits", stray.reason]
    assert found.refused.num_rows == 1


def test_a_row_that_repeats_another_is_bad_once() -> None:
    again = Repeats("an earlier row has the same 'n'", [11, 13], position=0)
    found = checked(["1", "1", "2", "x"], ["a", "b", "c", "d"], first_row=10, repeats=[again])
    assert [(one.line, one.column, one.value, one.reason) for one in found.bad] == [
        (12, "n", "1", "an earlier row has the same 'n'"),
        (14, "n", "x", "is not an integer of 64 bits"),
    ]
    key = Repeats("the key is there", [10])
    assert checked(["1"], ["a"], first_row=10, repeats=[key]).bad == [BadRow(11, None, None, "the key is there")]


def test_a_value_that_the_tables_column_does_not_hold_is_bad() -> None:
    found = checked(["1", "99999"], ["a", "b"], types=[pa.int16(), None])
    assert found.good.schema.types == [pa.int16(), pa.string()]
    ((bad,),) = ([one.reason for one in found.bad],)
    assert bad.endswith(", as that column of the table is")


def test_the_value_of_a_masked_column_is_not_shown() -> None:
    secret = column("n", type="integer", mask={"kind": "drop"})
    found = checked(["x", None], ["a", "b"], columns=[secret, column("s", constraints={"required": True})])
    assert [one.value for one in found.bad] == ["(masked)"]


def test_repeats_within_a_batch_are_counted_from_its_first_row() -> None:
    repeats = Repeats("again", [3, 10, 11, 30])
    assert repeats.within(10, 5) == [0, 1]
    assert repeats.within(0, 3) == []
