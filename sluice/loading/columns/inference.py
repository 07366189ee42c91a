"""Infers the types of columns of text from all values: a type is taken only if it gives every text back unchanged."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

_EXPONENT: Final = r"(?:[eE][-+]?[0-9]{1,3})?"
_NUMBERS: Final = (
    rf"^(?:0|-?[1-9][0-9]*|0\.[0-9]+{_EXPONENT}|-0\.[0-9]*[1-9][0-9]*{_EXPONENT}|-?[1-9][0-9]*\.[0-9]+{_EXPONENT})$"
)
"""007, +1 and -0 stay text, because no number gives them back; so does 1E5, which may be the number of an article."""
_EXACT: Final = 2**53
"""Floating-point numbers round integers above this."""
_SURELY_EXACT: Final = 16
"""Characters of a number that a floating-point number certainly keeps: 15 digits and a point."""


class ColumnLook:
    """Collects what is known of the values of one column."""

    def __init__(self) -> None:
        self._is_text = False
        self._integers = False
        self._large = False
        self._fractions = False
        self._exponents = False
        self._decimals: set[int] = set()
        """The different numbers of decimals of its fractions."""
        self._different: set[str] = set()
        """Two different fractions, if there are two."""
        self._round = False
        """Whether there is a fraction like 3.0, which ends with its only zero."""
        self._padded = False
        """Whether there is a fraction like 3.10, which ends with another zero."""

    def add(self, values: pa.StringArray) -> None:
        """Add some values; missing values say nothing."""
        found = values.drop_null()
        if not self._is_text and len(found) and not self._add_integers(found) and not self._add_numbers(found):
            self._is_text = True

    @property
    def type(self) -> pa.DataType:
        """The narrowest type that gives every value back as it was written; ``null`` if there are no values.

        Fractions become floating-point numbers if their digits can be restored: either all have the same number of
        decimals (1.50, 2.75), or all are as short as possible (1.5, 2.75 or 1.5, 2.0). From a single 3.10 this cannot
        be known.
        """
        if self._is_text:
            return pa.string()
        if not self._fractions:
            return pa.int64() if self._integers else pa.null()
        several = len(self._different) > 1
        fixed = several and len(self._decimals) == 1 and not self._integers and not self._exponents
        shortest = not self._padded and not (self._round and self._integers)
        return pa.float64() if not self._large and (fixed or shortest) else pa.string()

    @property
    def decimals(self) -> int | None:
        """The number of decimals that all values have, if it is the same and the numbers themselves do not show it."""
        return next(iter(self._decimals)) if self.type == pa.float64() and self._padded else None

    def _add_integers(self, found: pa.StringArray) -> bool:
        try:
            numbers = pc.cast(found, pa.int64())
        except pa.ArrowInvalid:
            return False
        if not pc.all(pc.equal(pc.cast(numbers, pa.string()), found)).as_py():
            return False
        self._note_integers(numbers)
        return True

    def _note_integers(self, numbers: pa.Int64Array) -> None:
        ends = pc.min_max(numbers).as_py()
        self._integers = True
        self._large |= ends["min"] < -_EXACT or ends["max"] > _EXACT

    def _add_numbers(self, found: pa.StringArray) -> bool:
        if not pc.all(pc.match_substring_regex(found, _NUMBERS)).as_py():
            return False
        points = pc.find_substring(found, ".")
        is_fraction = pc.greater_equal(points, 0)
        integers = found.filter(pc.invert(is_fraction))
        if len(integers) and not self._add_integers(integers):
            return False
        fractions = found.filter(is_fraction)
        return not len(fractions) or self._add_fractions(fractions, points.filter(is_fraction))

    def _add_fractions(self, found: pa.StringArray, points: pa.Int32Array) -> bool:
        has_exponent = pc.match_substring(found, "e", ignore_case=True)
        lengths = pc.binary_length(found)
        doubtful = found.filter(pc.or_(has_exponent, pc.greater(lengths, _SURELY_EXACT)))
        if not _are_exact(doubtful):
            return False
        self._fractions = True
        if len(self._different) < 2:  # noqa: PLR2004 - see there
            self._different.update(pc.unique(found)[:2].to_pylist())
        self._exponents |= bool(pc.any(has_exponent).as_py())
        decimals = pc.subtract(pc.subtract(lengths, points), 1).filter(pc.invert(has_exponent))
        ends_in_zero = pc.ends_with(found.filter(pc.invert(has_exponent)), "0")
        self._decimals.update(pc.unique(decimals).to_pylist())
        is_round = pc.and_(ends_in_zero, pc.equal(decimals, 1))
        self._round |= bool(pc.any(is_round).as_py())
        self._padded |= bool(pc.any(pc.and_not(ends_in_zero, is_round)).as_py())
        return True


def _are_exact(texts: pa.StringArray) -> bool:
    """Return whether 64-bit floating-point numbers have the exact values of all these decimal numbers."""
    if not len(texts):
        return True
    numbers = pc.cast(texts, pa.float64())
    other = texts.filter(pc.not_equal(pc.cast(numbers, pa.string()), texts))
    return all(is_exact(text) for text in other.to_pylist())


def is_exact(text: str) -> bool:
    """Return whether a 64-bit floating-point number has the exact value of this decimal number."""
    number = float(text)
    return math.isfinite(number) and Decimal(repr(number)) == Decimal(text)
