"""Counts the values of a column, for the report of a load."""

from __future__ import annotations

from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from sluice.display import visible

SAMPLED_ROWS: Final = 50_000
"""Number of rows at the beginning among which the most frequent values are counted."""
_TOP: Final = 5
_MOST_DIFFERENT: Final = 10_000
_NOTHING: Final = pa.table({"values": pa.nulls(0), "counts": pa.array([], pa.int64())})


class ColumnProfile:
    """Counts over one column; of a column with personal data no value is kept."""

    def __init__(self, *, secret: bool) -> None:
        self._secret = secret
        self._counts: pa.Table | None = None if secret else _NOTHING
        self._sampled = 0
        self._least: Any = None
        self._most: Any = None
        self._ordered = True
        self.rows = 0
        self.nulls = 0

    def add(self, values: pa.Array) -> None:
        """Count some values."""
        self.rows += len(values)
        self.nulls += values.null_count
        if self._secret:
            return
        if self._ordered and _has_ends(values.type):
            self._note_ends(_ends(values))
        if self._counts is not None and self._sampled < SAMPLED_ROWS and not pa.types.is_nested(values.type):
            self._sampled += len(values)
            self._counts = _added(self._counts, pc.value_counts(values.drop_null()))

    def _note_ends(self, ends: dict[str, Any]) -> None:
        least = [one for one in (self._least, ends["min"]) if one is not None]
        most = [one for one in (self._most, ends["max"]) if one is not None]
        try:
            self._least, self._most = min(least, default=None), max(most, default=None)
        except TypeError:  # numbers in one file of an archive and times in another: together they are text
            self._least, self._most, self._ordered = None, None, False

    @property
    def empty_share(self) -> float:
        """The share of missing values, from 0 to 1."""
        return self.nulls / self.rows if self.rows else 0.0

    def told(self) -> dict[str, Any]:
        """Return the entries of the report: share of missing values, least and greatest value, most frequent values."""
        found: dict[str, Any] = {"empty": self.nulls, "empty_share": self.empty_share}
        if self._least is not None:
            found |= {"least": str(self._least), "most": str(self._most)}
        most = [] if self._counts is None else _most(self._counts)
        if most and most[0]["counts"] > 1:
            found["top"] = {visible(str(one["values"]), 40): one["counts"] for one in most}
        return found


def _has_ends(type_: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_temporal(type_))


def _ends(values: pa.Array) -> dict[str, Any]:
    try:
        found: dict[str, Any] = pc.min_max(values).as_py()
    except (OverflowError, ValueError):  # times beyond those of Python
        return {"min": None, "max": None}
    return found


def _most(counts: pa.Table) -> list[dict[str, Any]]:
    if not len(counts):
        return []
    if pa.types.is_temporal(counts.schema.field("values").type):  # Python has no years beyond 9999
        counts = counts.set_column(0, "values", pc.cast(counts["values"], pa.string()))
    found: list[dict[str, Any]] = _together(counts).sort_by([("counts", "descending")]).slice(0, _TOP).to_pylist()
    return found


def _together(counts: pa.Table) -> pa.Table:
    """Return the counts with one row for each value."""
    if counts["counts"].num_chunks == 1:  # of one batch, in which each value was counted once
        return counts
    return counts.group_by("values").aggregate([("counts", "sum")]).rename_columns(["values", "counts"])


def _added(counts: pa.Table, more: pa.StructArray) -> pa.Table | None:
    """Return both counts together; None if there are too many different values for one of them to be frequent."""
    values, found = more.flatten()
    table = pa.table({"values": values, "counts": found})
    if len(counts) and counts.schema != table.schema:  # numbers at the beginning, and something else later
        counts, table = (one.set_column(0, "values", _texts(one["values"])) for one in (counts, table))
    together = pa.concat_tables([counts, table]) if len(counts) else table
    if len(together) > _MOST_DIFFERENT:
        together = _together(together)
    return together if len(together) <= _MOST_DIFFERENT else None


def _texts(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_temporal(values.type):
        return pc.cast(values, pa.string())
    return pa.chunked_array([[str(one) for one in values.to_pylist()]], pa.string())
