"""A column of text as another type, and what converts it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True, slots=True)
class Converted:
    """A column after conversion to another type."""

    values: pa.Array
    bad: pa.BooleanArray | None = None
    """A mask of the values that are not of the type, which are null in the column; None if all are."""
    reason: str = ""
    """The reason, which follows the bad value in a sentence."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """Converts text to a type.

    The fast conversion handles all values at once; those of which it is not sure are left to the slow one.
    """

    type: pa.DataType
    reason: str
    fast: Callable[[pa.StringArray], tuple[pa.Array, pa.BooleanArray]]
    """Returns all values converted, and a mask of those that are certainly right; others may be null or wrong."""
    slow: Callable[[str], Any]
    """Returns one value converted; raises `ValueError` or `OverflowError` if it is not of the type."""

    def __call__(self, texts: pa.StringArray) -> Converted:
        values, sure = self.fast(texts)
        rest = pc.and_(pc.is_valid(texts), pc.invert(pc.fill_null(sure, False)))
        if not pc.any(rest).as_py():
            return Converted(values)
        bad, other = [], []
        for text in texts.filter(rest).to_pylist():
            try:
                other.append(self.slow(text))
                bad.append(False)
            except (ValueError, OverflowError):
                other.append(None)
                bad.append(True)
        values = pc.replace_with_mask(values, rest, pa.array(other, self.type))
        if not any(bad):
            return Converted(values)
        no = pa.array([False] * len(texts))
        return Converted(values, pc.replace_with_mask(no, rest, pa.array(bad)), self.reason)


def as_text(values: pa.Array) -> pa.StringArray:
    """Return values as text, each by itself."""
    if pa.types.is_boolean(values.type) or pa.types.is_temporal(values.type):  # Python has no years beyond 9999
        return pc.cast(values, pa.string())
    return pa.array([None if one is None else str(one) for one in values.to_pylist()], pa.string())
