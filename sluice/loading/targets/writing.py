"""Writes the rows of a file into a table, in a thread beside reading and checking."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from sluice.loading.errors import RefusedFile, TargetFailed
from sluice.loading.targets.plan import LoadPlan, LoadQuality, TableColumn

_AHEAD: Final = 1
"""Number of batches being written, in a thread of their own, while the next one is read, checked and masked."""
BATCHES_REMEMBERED: Final = 8
"""Number of batches whose rows' places are kept, for a row that the database refuses after it was sent."""
_PLACEHOLDERS: Final = {"qmark": "?", "format": "%s", "pyformat": "%s"}

Lines = Callable[[], pa.Int64Array]
"""Returns the place of each row of a batch in its file."""

ROW_NUMBER: Final = "sluice_row"
"""The column with the number of a row in its file, beside the columns of its key."""

Known = Callable[[Iterable[pa.RecordBatch]], list[tuple[str, list[int]]]]
"""Returns, for rows with their keys and `ROW_NUMBER`, the numbers of those whose key the table has, grouped by the
loads from which they can be.
"""

Refusal = Callable[[Exception], str | None]
"""Returns what is wrong with a row, if that is why the database raised this error; otherwise None."""


class RowRefused(Exception):
    """The database refuses a row."""

    def __init__(self, reason: str, row: int | None = None) -> None:
        super().__init__(reason)
        self.row = row
        """The row's number in the load, from 0; None if it is one of the batch that was written last."""


class Writer(ABC):
    """Writes batches where the rows of one load go."""

    def __init__(self) -> None:
        self.rows = 0
        """Number of rows written in earlier batches."""
        self.nans = Counter[str]()
        """Number of NaN values by column that became NULL, because the database has no NaN."""

    @abstractmethod
    def write(self, rows: pa.RecordBatch) -> None:
        """Write rows. Raises `RowRefused`, perhaps for rows that were sent before."""

    @abstractmethod
    def finish(self) -> None:
        """Return when all rows are in the table. Raises `RowRefused`."""

    @abstractmethod
    def close(self) -> None:
        """Close what is open; without `finish` before, the rows are abandoned."""


class InsertWriter(Writer):
    """Writes batches by INSERT, which every driver can."""

    def __init__(self, connection: sa.Connection, table: str, plan: LoadPlan, refusal: Refusal) -> None:
        super().__init__()
        self._connection = connection
        self._table = table
        self._refusal = refusal
        style = _PLACEHOLDERS.get(connection.dialect.paramstyle)
        if style is None:
            raise TargetFailed(f"the driver {connection.dialect.driver} cannot be used for loading", transient=False)
        preparer = connection.dialect.identifier_preparer
        columns = ", ".join(preparer.quote_identifier(name) for name in plan.schema.names)
        values = ", ".join([style] * len(plan.schema.names))
        self._statement = f"INSERT INTO {table} ({columns}) VALUES ({values})"

    def write(self, rows: pa.RecordBatch) -> None:
        """Insert the rows. Raises `RowRefused`."""
        values = list(zip(*(one.to_pylist() for one in rows.columns), strict=True))
        try:
            self._connection.exec_driver_sql(self._statement, values)
        except DBAPIError as error:
            raise self._row_refused(error) from error

    def finish(self) -> None:
        """Do nothing: all rows are inserted."""

    def close(self) -> None:
        """Do nothing: nothing is open."""

    def _row_refused(self, error: Exception, row: int | None = None) -> Exception:
        reason = self._refusal(error)
        return error if reason is None else RowRefused(reason, row)


class TableLoad:
    """The load of one file into one table, in a transaction that commits when the load's block is left."""

    def __init__(
        self,
        writer: Writer,
        plan: LoadPlan,
        *,
        key: Iterable[str] = (),
        unit: str = "row",
        end: Callable[[int], None] | None = None,
        known: Known,
    ) -> None:
        """``end`` is called with the number of rows after all are written, ``known`` before any is."""
        self._writer = writer
        self.known = known
        self._unit = unit
        self._key = frozenset(key)
        self._end = end
        self._sent: deque[_Sent] = deque(maxlen=BATCHES_REMEMBERED)
        self._thread = ThreadPoolExecutor(1, "write to the table")
        self._writing: deque[tuple[_Sent, Future[None]]] = deque()
        self._short = {one.name: one for one in plan.there if one.type == pa.float32()}
        self.rows = 0
        """Number of rows written."""
        self.bad = 0
        """Number of rows left out, as set by whoever writes the load."""
        self.empty_shares: dict[str, float] = {}
        """Shares of missing values by column, set likewise."""
        self.notes: list[str] = []
        """Notes for the report."""

    def write(self, rows: pa.RecordBatch, lines: Lines | None = None) -> None:
        """Add rows; ``lines`` are their places in the file, for messages.

        Raises `RefusedFile` for a row that the table refuses: one of these, or of earlier ones, because rows are
        written in another thread.
        """
        if not rows.num_rows:
            return
        sent = _Sent(self.rows, rows.num_rows, lines)
        self._sent.append(sent)
        for name, values in zip(rows.schema.names, rows.columns, strict=True):
            if name in self._key and values.null_count:
                row = pc.index(pc.is_null(values), True).as_py()
                raise RefusedFile(f"{self._place(self.rows + row)}, column {name!r}: the key has no value")
            if pa.types.is_string(values.type):
                self._check_text(name, values)
            elif name in self._short:
                self._check_digits(self._short[name], values)
        self.rows += rows.num_rows
        self._await(_AHEAD)
        self._writing.append((sent, self._thread.submit(self._write, rows)))

    @property
    def quality(self) -> LoadQuality:
        """Return what became of the rows."""
        return LoadQuality(self.rows, self.bad, self.empty_shares)

    def finish(self) -> None:
        """Complete the load after its last row: wait for the writer, and merge what is staged. Raises `RefusedFile`."""
        self._await(0)
        self._told(self._sent[-1] if self._sent else _Sent(0, 0, None), self._writer.finish)
        self.notes += [
            f"column {name!r}: {count} NaN is NULL in the table" for name, count in (+self._writer.nans).items()
        ]
        if self._end is not None:
            self._end(self.rows)

    def close(self) -> None:
        """Close what is open; batches that are not being written yet are dropped."""
        self._thread.shutdown(cancel_futures=True)
        self._writer.close()

    def _write(self, rows: pa.RecordBatch) -> None:
        self._writer.write(rows)
        self._writer.rows += rows.num_rows

    def _await(self, most: int) -> None:
        """Wait until at most ``most`` batches are still to be written."""
        while len(self._writing) > most:
            sent, written = self._writing.popleft()
            self._told(sent, written.result)

    def _place(self, row: int) -> str:
        """Return the place of a row, counted from 0 over the whole load: ``line 17``."""
        sent = next((one for one in reversed(self._sent) if one.first <= row), None)
        if sent is None or sent.lines is None:
            return f"row {row + 1}"
        return f"{self._unit} {sent.lines()[row - sent.first].as_py()}"

    def _check_text(self, column: str, values: pa.StringArray) -> None:
        if _may_have_nul(values):
            row = pc.index(pc.match_substring(values, "\0"), True).as_py()
            if row >= 0:
                where = f"{self._place(self.rows + row)}, column {column!r}"
                raise RefusedFile(f"{where}: the value holds a NUL character, which databases refuse")

    def _check_digits(self, column: TableColumn, values: pa.Array) -> None:
        """Refuse numbers with more digits than 32 bits keep: databases round them without an error."""
        short = pc.cast(values, pa.float32(), safe=False)
        row = pc.index(pc.equal(short.cast(pa.string()), values.cast(pa.string())), False).as_py()
        if row >= 0:
            where = f"{self._place(self.rows + row)}, column {column.name!r}"
            raise RefusedFile(f"{where}: {values[row].as_py()} has more digits than its type {column.declared} keeps")

    def _told(self, sent: _Sent, wait: Callable[[], Any]) -> None:
        try:
            wait()
        except RowRefused as error:
            place = self._places(sent, error.row)
            raise RefusedFile(f"{place}: the database refuses a row: {error}") from error

    def _places(self, sent: _Sent, row: int | None) -> str:
        """Return the place of the row, if it is known which one it is; otherwise of the whole batch."""
        if row is not None:
            return self._place(row)
        if sent.lines is None:
            return f"rows {sent.first + 1} to {sent.first + sent.count}"
        places = sent.lines()
        return f"{self._unit}s {places[0].as_py()} to {places[-1].as_py()}"


@dataclass(frozen=True, slots=True)
class _Sent:
    """A batch that was sent."""

    first: int
    """Number of its first row, from 0 over the whole load."""
    count: int
    lines: Lines | None


def _may_have_nul(values: pa.StringArray) -> bool:
    """Return whether there is a NUL in the buffer that these values share with others."""
    data = values.buffers()[2]
    return data is not None and re.search(b"\0", data) is not None
