"""Which types columns of text get: only those that give every value back."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sluice.loading.columns.inference import ColumnLook

INTEGER, REAL, TEXT = pa.int64(), pa.float64(), pa.string()


def type_of(*values: str | None, apart: bool = False) -> pa.DataType:
    look = ColumnLook()
    for batch in ([one] for one in values) if apart else [values]:
        look.add(pa.array(list(batch), pa.string()))
    return look.type


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("0", INTEGER),
        ("-17", INTEGER),
        ("9007199254740993", INTEGER),
        ("9223372036854775807", INTEGER),
        ("9223372036854775808", TEXT),
        ("007", TEXT),
        ("-0", TEXT),
        ("-0.0", TEXT),
        ("+1", TEXT),
        ("0x10", TEXT),
        ("1_000", TEXT),
        ("٣", TEXT),
        ("1.5", REAL),
        ("-0.5", REAL),
        ("0.30000000000000004", REAL),
        ("0.1000000000000000055511151231257827", TEXT),
        ("12345678901234567.89", TEXT),
        ("1.5e300", REAL),
        ("1.5e999", TEXT),
        ("1E5", TEXT),
        (".5", TEXT),
        ("5.", TEXT),
        ("nan", TEXT),
        ("inf", TEXT),
        ("2026-03-01", TEXT),
        ("true", TEXT),
        (" 1", TEXT),
        ("1,5", TEXT),
    ],
)
def test_a_value_is_a_number_only_if_the_number_gives_it_back(text: str, kind: pa.DataType) -> None:
    assert type_of(text) == kind


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "2.5"], REAL),
        (["2.5", "1"], REAL),
        (["1", "9007199254740993"], INTEGER),
        (["9007199254740993", "2.5"], TEXT),
        (["1", "x"], TEXT),
        (["x", "1"], TEXT),
        (["1", None, "2"], INTEGER),
        ([None], pa.null()),
        (["3.9", "3.10", "3.1"], TEXT),
        (["1.50", "2.75", "10.00"], REAL),
        (["3.10"], TEXT),
        (["3.10", "3.10"], TEXT),
        (["3.0"], REAL),
        (["1.0", "2.55", "3.25"], REAL),
        (["3", "3.0", "3.1"], TEXT),
        (["100", "2.50"], TEXT),
        (["1.5", "1.5e-7"], REAL),
        (["1.50", "1.5e-7"], TEXT),
    ],
)
def test_a_column_gets_the_narrowest_type_that_gives_all_its_values_back(
    values: list[str | None], kind: pa.DataType, apart: bool
) -> None:
    assert type_of(*values, apart=apart) == kind


def test_the_number_of_decimals_is_told_where_the_numbers_do_not_show_it() -> None:
    look = ColumnLook()
    look.add(pa.array(["1.50", "2.75"]))
    assert look.decimals == 2
    look.add(pa.array(["3.1"]))
    assert look.decimals is None


@given(st.lists(st.text(alphabet="0123456789.-+eE", max_size=24), min_size=1, max_size=4))
@example(["3.9", "3.10"])
def test_no_text_changes_by_being_a_number(texts: list[str]) -> None:
    look = ColumnLook()
    look.add(pa.array(texts))
    if look.type == INTEGER:
        assert [str(int(text)) for text in texts] == texts
    if look.type == REAL:
        assert all(Decimal(repr(float(text))) == Decimal(text) for text in texts)
        plain = {text for text in texts if "e" not in text.lower()}
        assert len({float(text) for text in plain}) == len(plain)
