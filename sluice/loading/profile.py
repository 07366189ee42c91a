"""What the values of a column are like, for the report of a load."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from sluice.display import visible

SAMPLED_ROWS: Final = 50_000
"""The most frequent values are those of so many rows at the beginning."""
_TOP: Final = 5
_MOST_DIFFERENT: Final = 10_000


class ColumnProfile:
    """Counts over one column. Of a column with personal data no value is kept."""

    def __init__(self, *, secret: bool) -> None:
        self._secret = secret
        self._counts: Counter[str] | None = None if secret else Counter()
        self._sampled = 0
        self._least: Any = None
        self._most: Any = None
        self.rows = 0
        self.nulls = 0

    def add(self, values: pa.Array) -> None:
        """Count some values."""
        self.rows += len(values)
        self.nulls += values.null_count
        if self._secret:
            return
        if pa.types.is_integer(values.type) or pa.types.is_floating(values.type) or pa.types.is_temporal(values.type):
            ends = pc.min_max(values).as_py()
            self._least = min((one for one in (self._least, ends["min"]) if one is not None), default=None)
            self._most = max((one for one in (self._most, ends["max"]) if one is not None), default=None)
        if self._counts is not None and self._sampled < SAMPLED_ROWS and not pa.types.is_nested(values.type):
            self._sampled += len(values)
            for entry in pc.value_counts(values.drop_null()).to_pylist():
                self._counts[visible(str(entry["values"]), 40)] += entry["counts"]
            if len(self._counts) > _MOST_DIFFERENT:
                self._counts = None

    def told(self) -> dict[str, Any]:
        """For the report: the share of nulls, the ends, the most frequent values."""
        found: dict[str, Any] = {"empty": self.nulls, "empty_share": self.nulls / self.rows if self.rows else 0.0}
        if self._least is not None:
            found |= {"least": str(self._least), "most": str(self._most)}
        if self._counts and self._counts.most_common(1)[0][1] > 1:
            found["top"] = dict(self._counts.most_common(_TOP))
        return found
