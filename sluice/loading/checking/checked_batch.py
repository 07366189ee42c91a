"""Converts and checks the rows of a batch: those that can be loaded, and the others with the reason."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from sluice.loading.columns.converted import as_text
from sluice.loading.columns.load_column import LoadColumn
from sluice.loading.reading.batch import BadRow, RowBatch
from sluice.loading.showing import MASKED

Places = Callable[[], pa.Int64Array]


@dataclass(frozen=True, slots=True)
class CheckedBatch:
    """The rows of a batch after conversion and checks."""

    good: pa.RecordBatch
    """The rows without a fault, converted to the types of the columns."""
    rows: pa.Int64Array | range
    """The number of each good row in the file, from 0."""
    places: Places
    """The place of each good row in its file (its line, from 1)."""
    bad: list[BadRow]
    refused: pa.RecordBatch
    """The rows to which the first entries of ``bad`` belong, as they were read. The later entries are records without
    the columns of the file.
    """


@dataclass(frozen=True, slots=True)
class Repeats:
    """Rows whose value of a column, or of the primary key, is in an earlier row or in the table."""

    reason: str
    rows: Sequence[int]
    """Their numbers in the file, from 0, ascending."""
    position: int | None = None
    """The column whose value belongs into the message; None for a reason without a value."""

    def within(self, first: int, count: int) -> Sequence[int]:
        """Return those among the ``count`` rows from ``first`` on, as numbers from ``first``."""
        start, end = bisect_left(self.rows, first), bisect_left(self.rows, first + count)
        return [row - first for row in self.rows[start:end]]


def check_batch(
    columns: Sequence[LoadColumn],
    batch: RowBatch,
    first_row: int,
    *,
    constraints: bool = True,
    repeats: Sequence[Repeats] = (),
    types: Sequence[pa.DataType | None] | None = None,
) -> CheckedBatch:
    """Convert and check some rows, the first of which is row ``first_row`` of the file, from 0.

    Without ``constraints`` values are only converted. ``types`` are those of the table's columns where they are known:
    a value that its column does not hold unchanged makes the row bad. A row has one reason, the first that was found.
    """
    arrays = []
    problems: dict[int, tuple[int | None, str]] = {}
    for position, (column, values) in enumerate(zip(columns, batch.rows.columns, strict=True)):
        converted = column.converted(values)
        if converted.bad is not None:
            _note(problems, position, converted.bad, converted.reason)
        for mask, reason in column.bad(converted.values) if constraints else ():
            _note(problems, position, mask, reason)
        type_ = types[position] if types is not None else None
        if type_ is not None:
            converted = column.fitted(converted.values, type_)
            if converted.bad is not None:
                _note(problems, position, converted.bad, f"{converted.reason}, as that column of the table is")
        arrays.append(converted.values)
    for one in repeats:
        for row in one.within(first_row, batch.rows.num_rows):
            problems.setdefault(row, (one.position, one.reason))
    found = pa.RecordBatch.from_arrays(arrays, names=batch.rows.schema.names)
    places = batch.lines or _counted(first_row, batch.rows.num_rows)
    if not problems:
        rows = range(first_row, first_row + found.num_rows)
        return CheckedBatch(found, rows, places, list(batch.bad), batch.rows.slice(0, 0))
    return _sorted_out(columns, batch, found, first_row, problems)


def _sorted_out(
    columns: Sequence[LoadColumn],
    batch: RowBatch,
    found: pa.RecordBatch,
    first_row: int,
    problems: dict[int, tuple[int | None, str]],
) -> CheckedBatch:
    kept = pa.array([row not in problems for row in range(found.num_rows)])
    places = (batch.lines or _counted(first_row, found.num_rows))()
    refused = sorted(problems)
    bad = []
    for row in refused:
        position, reason = problems[row]
        name, value = None, None
        if position is not None:
            name, value = columns[position].name, as_text(batch.rows.column(position)[row : row + 1])[0].as_py()
            value = MASKED if value is not None and columns[position].secret else value
        bad.append(BadRow(places[row].as_py(), name, value, reason))
    rows = pa.array(range(first_row, first_row + found.num_rows), pa.int64()).filter(kept)
    raw = batch.rows.take(pa.array(refused, pa.int64()))
    return CheckedBatch(found.filter(kept), rows, lambda: places.filter(kept), [*bad, *batch.bad], raw)


def _note(problems: dict[int, tuple[int | None, str]], position: int, mask: pa.BooleanArray, reason: str) -> None:
    for row in pc.indices_nonzero(pc.fill_null(mask, fill_value=False)).to_pylist():
        problems.setdefault(row, (position, reason))


def _counted(first_row: int, count: int) -> Places:
    return lambda: pa.array(range(first_row + 1, first_row + 1 + count), pa.int64())
