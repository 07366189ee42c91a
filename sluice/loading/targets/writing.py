"""The rows of a file on their way into a table."""

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
"""While so many batches are being written, by a thread of their own, the next one is read, checked and masked."""
BATCHES_REMEMBERED: Final = 8
"""For the place of a row that the database refuses later than it was sent."""
_PLACEHOLDERS: Final = {"qmark": "?", "format": "%s", "pyformat": "%s"}

Lines = Callable[[], pa.Int64Array]
"""Finds the place of each row of a batch in its file."""

ROW_NUMBER: Final = "sluice_row"
"""The column with the number of a row in its file, beside the columns of its key."""

Known = Callable[[Iterable[pa.RecordBatch]], list[tuple[str, list[int]]]]
"""Of rows with their keys and `ROW_NUMBER`: the numbers of those whose key the table has, by what put it there."""

Refusal = Callable[[Exception], str | None]
"""What is wrong with a row, if that is why the database raised this error."""


class RowRefused(Exception):
    """The database does not take a row."""

    def __init__(self, reason: str, row: int | None = None) -> None:
        super().__init__(reason)
        self.row = row
        """Counted from 0 from the beginning of the load; None: one of the batch that was written last."""


class Writer(ABC):
    """Puts batches where the rows of one load go."""

    def __init__(self) -> None:
        self.rows = 0
        """How many were written in batches before."""
        self.nans = Counter[str]()
        """By column: how many values that are no number became NULL, because the database has none."""

    @abstractmethod
    def write(self, rows: pa.RecordBatch) -> None:
        """Send the rows on their way. Raises `RowRefused`, if need be for rows that were sent before."""

    @abstractmethod
    def finish(self) -> None:
        """Return when all rows are in the table. Raises `RowRefused`."""

    @abstractmethod
    def close(self) -> None:
        """Give back what is open; without `finish` before, the rows are not wanted."""


class InsertWriter(Writer):
    """Puts batches into a table of a database, in the way that every driver knows."""

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
        """Send the rows on their way."""
        values = list(zip(*(one.to_pylist() for one in rows.columns), strict=True))
        try:
            self._connection.exec_driver_sql(self._statement, values)
        except DBAPIError as error:
            raise self._row_refused(error) from error

    def finish(self) -> None:
        """All rows are there."""

    def close(self) -> None:
        """Nothing is open."""

    def _row_refused(self, error: Exception, row: int | None = None) -> Exception:
        reason = self._refusal(error)
        return error if reason is None else RowRefused(reason, row)


class TableLoad:
    """One file's load into one table, in a transaction that commits when the load's block is left."""

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
        """``end`` is called with the number of rows when all are written, ``known`` before any is."""
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
        """How many were written."""
        self.bad = 0
        """How many are left out, as far as the writer of the load has said."""
        self.empty_shares: dict[str, float] = {}
        """The same of the shares of missing values, by column."""
        self.notes: list[str] = []
        """What the reader of a report should know."""

    def write(self, rows: pa.RecordBatch, lines: Lines | None = None) -> None:
        """Add rows; ``lines`` are their places in the file, for messages.

        Raises `RefusedFile` for a row that the table does not take: one of these or of those before.
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
        """What became of the rows."""
        return LoadQuality(self.rows, self.bad, self.empty_shares)

    def finish(self) -> None:
        """All rows are there: put them where they belong. Raises `RefusedFile`."""
        self._await(0)
        self._told(self._sent[-1] if self._sent else _Sent(0, 0, None), self._writer.finish)
        self.notes += [
            f"column {name!r}: {count} NaN is NULL in the table" for name, count in (+self._writer.nans).items()
        ]
        if self._end is not None:
            self._end(self.rows)

    def close(self) -> None:
        """Give back what is open; batches that are not being written yet are not wanted."""
        self._thread.shutdown(cancel_futures=True)
        self._writer.close()

    def _write(self, rows: pa.RecordBatch) -> None:
        self._writer.write(rows)
        self._writer.rows += rows.num_rows

    def _await(self, most: int) -> None:
        """Return when so many batches at most are still to be written."""
        while len(self._writing) > most:
            sent, written = self._writing.popleft()
            self._told(sent, written.result)

    def _place(self, row: int) -> str:
        """Where the row, counted from 0 over the whole load, stands: ``line 17``."""
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
        """A number of 32 bits gives back so many digits, and databases round to them without a word."""
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
        """The row, if it is known which one it is; else all of the batch."""
        if row is not None:
            return self._place(row)
        if sent.lines is None:
            return f"rows {sent.first + 1} to {sent.first + sent.count}"
        places = sent.lines()
        return f"{self._unit}s {places[0].as_py()} to {places[-1].as_py()}"


@dataclass(frozen=True, slots=True)
class _Sent:
    """A batch on its way."""

    first: int
    """Its first row, counted from 0 over the whole load."""
    count: int
    lines: Lines | None


def _may_have_nul(values: pa.StringArray) -> bool:
    """Whether a NUL is in the buffer that these values share with others."""
    data = values.buffers()[2]
    return data is not None and re.search(b"\0", data) is not None
