"""Converts numbers in text: as a contract says they are written, or as a table's column gives them back."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from sluice.loading.columns.converted import Conversion
from sluice.loading.columns.inference import is_exact
from sluice.loading.contracts.contract import ContractField

_SURE_INTEGER: Final = r"^[+-]?[0-9]{1,18}$"
_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
_SURE_NUMBER: Final = r"^[+-]?(?:[0-9]{1,15}|[0-9]{1,9}\.[0-9]{0,6}|\.[0-9]{1,15})$"
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_AROUND: Final = re.compile(r"^[^0-9+\-.,]+|[^0-9.,]+$")
"""What may stand around a number: a unit, a currency."""
_PLAIN_INTEGER: Final = re.compile(r"0|-?[1-9][0-9]*")
_PLAIN_NUMBER: Final = re.compile(r"0|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+(?:[eE][-+]?[0-9]{1,3})?)?")


def sure_integers(pattern: str) -> Callable[[pa.StringArray], tuple[pa.Array, pa.BooleanArray]]:
    def fast(texts: pa.StringArray) -> tuple[pa.Array, pa.BooleanArray]:
        sure = pc.match_substring_regex(texts, pattern)
        plain = pc.if_else(sure, texts, None)
        if pc.any(pc.starts_with(plain, "+")).as_py():
            plain = pc.replace_substring(plain, "+", "", max_replacements=1)
        return pc.cast(plain, pa.int64()), sure

    return fast


def _integer(text: str) -> int:
    number = int(text) if _INTEGER.fullmatch(text) else None
    if number is None or not -(2**63) <= number < 2**63:
        raise ValueError(text)
    return number


def _sure_numbers(texts: pa.StringArray) -> tuple[pa.Array, pa.BooleanArray]:
    sure = pc.match_substring_regex(texts, _SURE_NUMBER)
    return pc.cast(pc.if_else(sure, texts, None), pa.float64()), sure


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text) or not is_exact(text):
        raise ValueError(text)
    return float(text)


INTEGERS: Final = Conversion(pa.int64(), "is not an integer of 64 bits", sure_integers(_SURE_INTEGER), _integer)
NUMBERS: Final = Conversion(
    pa.float64(), "is not a number, or has more digits than a floating-point number holds", _sure_numbers, _number
)


def plain_integers(type_: pa.DataType) -> Conversion:
    """Return the conversion to integers that are written as the number gives them back."""

    def slow(text: str) -> int:
        if not _PLAIN_INTEGER.fullmatch(text):
            raise ValueError(text)
        return pa.scalar(int(text), type_).as_py()  # type: ignore[no-any-return]

    def fast(texts: pa.StringArray) -> tuple[pa.Array, pa.BooleanArray]:
        sure = pc.match_substring_regex(texts, r"^(?:0|-?[1-9][0-9]{0,17})$")
        numbers = pc.cast(pc.if_else(sure, texts, None), pa.int64())
        try:
            return pc.cast(numbers, type_), sure
        except pa.ArrowInvalid:  # out of the range of the column
            return pa.nulls(len(texts), type_), pa.array([False] * len(texts), pa.bool_())

    bits = f"integer of {type_.bit_width} bits"
    return Conversion(type_, f"is not an {bits}, digit for digit", fast, slow)


def _plain_number(text: str) -> float:
    padded = text.endswith("0") and "." in text and not text.endswith(".0") and "e" not in text.lower()
    if not _PLAIN_NUMBER.fullmatch(text) or padded or not is_exact(text):
        raise ValueError(text)
    return float(text)


def _sure_plain_numbers(texts: pa.StringArray) -> tuple[pa.Array, pa.BooleanArray]:
    sure = pc.match_substring_regex(texts, r"^(?:0|-?[1-9][0-9]{0,14}|-?(?:0|[1-9][0-9]{0,8})\.[0-9]{0,5}[1-9])$")
    return pc.cast(pc.if_else(sure, texts, None), pa.float64()), sure


PLAIN_NUMBERS: Final = Conversion(
    pa.float64(),
    "is not a number that a floating-point number gives back, digit for digit",
    _sure_plain_numbers,
    _plain_number,
)


def grouped(plain: Conversion, one: ContractField) -> Conversion:
    """Return the conversion of numbers as they are written in a country: 1.234,50 or 12 %."""
    if one.decimal_char == "." and one.group_char is None and one.bare_number:
        return plain
    group, point = re.escape(one.group_char or ""), re.escape(one.decimal_char)
    in_groups = re.compile(rf"[+-]?[1-9][0-9]{{0,2}}(?:{group}[0-9]{{2,3}})*{group}[0-9]{{3}}(?:{point}[0-9]*)?")

    def clean(text: str) -> str | None:
        """Return the number as ``plain`` reads it; None if its signs are in the wrong places."""
        text = text if one.bare_number else _bare(text)
        if one.group_char is not None and one.group_char in text:
            if not in_groups.fullmatch(text):
                return None
            text = text.replace(one.group_char, "")
        if one.decimal_char != ".":
            text = text.replace(".", "\0").replace(one.decimal_char, ".")
        return text

    def fast(texts: pa.StringArray) -> tuple[pa.Array, pa.BooleanArray]:
        if one.decimal_char != "." and one.group_char is None and one.bare_number:
            pointed = pc.match_substring(texts, ".")
            return plain.fast(pc.replace_substring(pc.if_else(pointed, None, texts), one.decimal_char, "."))
        return plain.fast(pa.array([None if text is None else clean(text) for text in texts.to_pylist()], pa.string()))

    def slow(text: str) -> Any:
        cleaned = clean(text)
        if cleaned is None:
            raise ValueError(text)
        return plain.slow(cleaned)

    return Conversion(plain.type, plain.reason, fast, slow)


def _bare(text: str) -> str:
    """Return the number without its unit or currency; the text unchanged if what stands there is part of the number.

    Such a part is a sign, as in ``5-`` and ``(5)``, or a digit, as in ``5½``, but not that of ``5 m²``.
    """
    for around in _AROUND.findall(text):
        for before, one in pairwise(f" {around}"):
            is_digit = one.isnumeric() and not before.isalpha()
            if is_digit or one in "+\u2212" or unicodedata.category(one) in {"Pd", "Ps", "Pe"}:
                return text
    return _AROUND.sub("", text)


def decimals(type_: pa.DataType) -> Conversion:
    def slow(text: str) -> Decimal:
        try:
            number = Decimal(text)
            return pa.scalar(number, type_).as_py()  # type: ignore[no-any-return]
        except (InvalidOperation, pa.ArrowInvalid) as error:
            raise ValueError(text) from error

    def fast(texts: pa.StringArray) -> tuple[pa.Array, pa.BooleanArray]:
        whole = max(1, min(type_.precision - type_.scale, 18))
        point = rf"(?:\.[0-9]{{1,{type_.scale}}})?" if type_.scale else ""
        sure = pc.match_substring_regex(texts, rf"^-?[0-9]{{1,{whole}}}{point}$")
        return pc.cast(pc.if_else(sure, texts, None), type_), sure

    return Conversion(type_, f"is not a number of {type_.precision} digits, {type_.scale} of them decimals", fast, slow)
