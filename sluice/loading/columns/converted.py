"""What becomes of a column of text that is to be of another type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True, slots=True)
class Converted:
    """A column as another type."""

    values: pa.Array
    bad: pa.BooleanArray | None = None
    """Where a value is none of the type; it is null there. None: there is no such value."""
    reason: str = ""
    """Follows the bad value in a sentence."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """From text to a type."""

    type: pa.DataType
    reason: str
    fast: Callable[[pa.StringArray], tuple[pa.Array, pa.BooleanArray]]
    """All values at once, and which of them are sure to be right; the others are null or wrong."""
    slow: Callable[[str], Any]
    """One value; raises `ValueError` or `OverflowError` where it is none."""

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
    """Values as text, one by one."""
    if pa.types.is_boolean(values.type) or pa.types.is_temporal(values.type):  # Python has no years beyond 9999
        return pc.cast(values, pa.string())
    return pa.array([None if one is None else str(one) for one in values.to_pylist()], pa.string())
