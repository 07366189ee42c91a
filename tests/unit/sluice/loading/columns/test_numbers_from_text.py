"""Numbers in text: as a contract says they are written, or as a column of a table gives them back."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.loading.columns.converted import Conversion
from sluice.loading.columns.numbers_from_text import INTEGERS, NUMBERS, PLAIN_NUMBERS, decimals, grouped, plain_integers
from sluice.loading.contracts.contract import ContractField

BAD = object()


def converted(conversion: Conversion, *texts: str | None) -> list[Any]:
    """The values; `BAD` where a text is none."""
    found = conversion(pa.array(texts, pa.string()))
    assert found.values.type == conversion.type
    wrong = found.bad.to_pylist() if found.bad is not None else [False] * len(texts)
    values = [BAD if no else value for no, value in zip(wrong, found.values.to_pylist(), strict=True)]
    assert all(value is None for no, value in zip(wrong, found.values.to_pylist(), strict=True) if no)
    return values


def test_integers_of_64_bits_and_nothing_else() -> None:
    texts = ["7", "+007", "-0", str(2**63 - 1), str(-(2**63)), str(2**63), "1.0", "", " 1", "1_000", "٣", None]
    assert converted(INTEGERS, *texts) == [7, 7, 0, 2**63 - 1, -(2**63), BAD, BAD, BAD, BAD, BAD, BAD, None]


def test_a_number_has_no_more_digits_than_a_float_holds() -> None:
    texts = ["1.5", ".5e1", "5.", "-0.1", "12345678901234567.89", "1e999", "nan", "inf", "1,5", "0x1", None]
    assert converted(NUMBERS, *texts) == [1.5, 5.0, 5.0, -0.1, BAD, BAD, BAD, BAD, BAD, BAD, None]


@pytest.mark.parametrize(
    ("width", "texts", "values"),
    [
        (pa.int64(), ["0", "-7", "007", "+7", "-0", "7.0"], [0, -7, BAD, BAD, BAD, BAD]),
        (pa.int16(), ["32767", "32768", "-32769"], [32767, BAD, BAD]),
        (pa.uint8(), ["255", "256", "-1"], [255, BAD, BAD]),
        (pa.uint64(), [str(2**64 - 1), str(2**64)], [2**64 - 1, BAD]),
    ],
)
def test_an_integer_of_a_column_gives_its_text_back(width: pa.DataType, texts: list[str], values: list[Any]) -> None:
    assert converted(plain_integers(width), *texts) == values
    assert f"integer of {width.bit_width} bits" in plain_integers(width).reason


def test_a_float_of_a_column_gives_its_text_back() -> None:
    texts = ["1.5", "1.50", "1.0", "0.1e-7", "1e5", "01.5", "0.3000000000000000166"]
    assert converted(PLAIN_NUMBERS, *texts) == [1.5, BAD, 1.0, 1e-8, BAD, BAD, BAD]


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53).map(float))
def test_any_float_is_read_as_itself(number: float) -> None:
    assert converted(NUMBERS, repr(number)) == [number]


def test_decimals_have_as_many_digits_as_their_column() -> None:
    money = decimals(pa.decimal128(5, 2))
    assert converted(money, "1.5", "999.99", "-0.01") == [Decimal("1.50"), Decimal("999.99"), Decimal("-0.01")]
    assert converted(money, "1000", "1.234", "1.", "x", "NaN", "Infinity", "1.230") == [
        BAD, BAD, Decimal("1.00"), BAD, BAD, BAD, Decimal("1.23")
    ]  # fmt: skip
    assert converted(decimals(pa.decimal128(38, 0)), "9" * 38, "9" * 39) == [Decimal("9" * 38), BAD]


@pytest.mark.parametrize(
    ("written", "texts", "values"),
    [
        ({"decimalChar": ","}, ["1,5", "1.5", "1", ",5"], [1.5, BAD, 1.0, 0.5]),
        ({"decimalChar": ",", "groupChar": "."}, ["1.234,5", "1234,5", "1.23", "1.234.56", "0.123"],
         [1234.5, 1234.5, BAD, BAD, BAD]),
        ({"groupChar": ","}, ["1,234.5", "12,34,567", "1,2", ",123"], [1234.5, 1234567.0, BAD, BAD]),
        ({"groupChar": " "}, ["1 234", "1  234"], [1234.0, BAD]),
        ({"bareNumber": False}, ["$ 5.5", "5.5 %", "EUR5", "%", "a5b6", "5 m²", "5½", "(5)", "5-"],
         [5.5, 5.5, 5.0, BAD, BAD, 5.0, BAD, BAD, BAD]),
    ],
)  # fmt: skip
def test_numbers_are_written_as_the_contract_says(written: dict[str, Any], texts: list[str], values: list[Any]) -> None:
    field = ContractField.model_validate({"name": "x", "type": "number", **written})
    assert converted(grouped(NUMBERS, field), *texts) == values


def test_plainly_written_numbers_take_the_plain_way() -> None:
    assert grouped(INTEGERS, ContractField(name="x", type="integer")) is INTEGERS
