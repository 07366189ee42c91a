"""Limits of reading a file: each is refused with its name, and with what to raise it to."""

from __future__ import annotations

import io

import pytest
from pydantic import ValidationError

from sluice.budgets import FREE_BYTES, BoundedLines, Budget, Meter
from sluice.errors import OverBudget


def test_the_refusal_says_how_to_raise_the_limit() -> None:
    Budget(rows=5).check("rows", 5, "x.csv")
    with pytest.raises(OverBudget) as caught:
        Budget(rows=5).check("rows", 6, "x.csv has more rows")
    assert str(caught.value).startswith("x.csv has more rows: the budget rows = 5 is reached")
    assert '{"rows": 10}' in str(caught.value)


@pytest.mark.parametrize("given", [{"rows": 0}, {"rows": "many"}, {"lines": 5}])
def test_a_limit_that_is_none_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Budget.model_validate(given)


def test_a_small_file_may_unpack_to_much_and_no_further() -> None:
    meter = Meter(Budget(expansion_ratio=1), 10, name="x.gz")
    meter.add(FREE_BYTES)
    with pytest.raises(OverBudget, match=r"x\.gz has 10 bytes, .* expansion_ratio = 1"):
        meter.add(1)


def test_a_larger_file_may_unpack_to_so_many_times_its_size() -> None:
    size = FREE_BYTES
    meter = Meter(Budget(expansion_ratio=3), size, name="x.gz")
    meter.add(3 * size)
    with pytest.raises(OverBudget, match="expansion_ratio"):
        meter.add(1)


def test_what_comes_out_of_a_file_has_a_limit_of_its_own() -> None:
    meter = Meter(Budget(unpacked_bytes=100), 10, name="x.gz")
    meter.add(60)
    meter.add(40)
    with pytest.raises(OverBudget, match=r"more than 100 bytes come out of x\.gz"):
        meter.add(1)


def test_a_file_without_a_byte_is_measured_too() -> None:
    meter = Meter(Budget(), 0, name="x.gz")
    meter.add(FREE_BYTES)
    assert meter.total == FREE_BYTES


def test_lines_of_one_record_count_together_until_it_ends() -> None:
    lines = BoundedLines(io.StringIO("12345\n1234\n12345\n"), Budget(line_bytes=11), "x.csv")
    assert [next(lines), next(lines)] == ["12345\n", "1234\n"]
    lines.end_record()
    assert next(lines) == "12345\n"
    assert list(lines) == []


def test_a_record_that_is_too_long_is_refused_with_its_line() -> None:
    lines = BoundedLines(io.StringIO("1\n" + "2" * 50), Budget(line_bytes=10), "x.csv")
    next(lines)
    with pytest.raises(OverBudget, match=r"x\.csv, line 2 is too long"):
        next(lines)
