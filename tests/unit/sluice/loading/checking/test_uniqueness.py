"""Which rows repeat a value that an earlier one has, over all batches of a file."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.loading.checking.uniqueness import UniqueColumns


def repeats(*batches: list[Any], type_: pa.DataType | None = None) -> list[int]:
    """The rows of one column that repeat an earlier one, counted over the batches."""
    unique, first = UniqueColumns([0], "again"), 0
    for values in batches:
        unique.add([pa.array(values, type_)], range(first, first + len(values)))
        first += len(values)
    found = unique.repeats()
    assert found.reason == "again"
    return list(found.rows)


def test_a_repeated_value_is_found_across_batches() -> None:
    assert repeats([1, 2], [3, 1], [2, 4]) == [3, 4]
    assert repeats(["a", "b"], ["a"]) == [2]
    assert repeats([1.5, 2.5, 1.5]) == [2]


def test_the_first_of_several_is_none() -> None:
    assert repeats([5, 5, 5]) == [1, 2]


def test_values_in_order_repeat_nothing() -> None:
    assert repeats([1, 2, 3], [4, 5]) == []
    assert repeats() == []
    assert repeats([7]) == []


def test_a_missing_value_repeats_nothing() -> None:
    assert repeats([None, 1, None], [None, 1], type_=pa.int64()) == [4]
    assert repeats([None, None], type_=pa.string()) == []


def test_a_part_of_a_larger_array_is_looked_at_alone() -> None:
    unique = UniqueColumns([0], "again")
    unique.add([pa.array([9, 1, 2, 9])[1:3]], range(2))
    unique.add([pa.array([9, 9])[:1]], range(2, 3))
    assert list(unique.repeats().rows) == []


def test_rows_may_have_any_numbers_as_where_bad_ones_are_left_out() -> None:
    unique = UniqueColumns([0], "again")
    unique.add([pa.array([1, 2, 1])], pa.array([10, 20, 30]))
    assert list(unique.repeats().rows) == [30]


@pytest.mark.parametrize(("second", "found"), [(["x", "x"], [3]), (["y", "y"], [3]), (["x", "z"], [])])
def test_several_columns_repeat_together(second: list[str], found: list[int]) -> None:
    unique = UniqueColumns([1, 0], "again")
    unique.add([pa.array([1, 1]), pa.array(["x", "y"])], range(2))
    unique.add([pa.array([2, 1]), pa.array(second)], range(2, 4))
    assert list(unique.repeats().rows) == found


@given(st.lists(st.lists(st.none() | st.integers(0, 9), max_size=8), max_size=6))
def test_the_rows_are_those_that_a_set_finds(batches: list[list[int | None]]) -> None:
    seen: set[int] = set()
    expected = []
    for row, value in enumerate(value for batch in batches for value in batch):
        if value is not None and value in seen:
            expected.append(row)
        seen |= {value} if value is not None else set()
    assert repeats(*batches, type_=pa.int64()) == expected
