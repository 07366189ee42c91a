"""Loads into PostgreSQL by COPY."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import sqlalchemy as sa

from sluice.loading.targets.database import DatabaseTarget, engine_for
from sluice.loading.targets.plan import Destination, LoadPlan
from sluice.loading.targets.writing import BATCHES_REMEMBERED, InsertWriter, Refusal, Writer
from sluice.tables import table_key


class PostgresTarget(DatabaseTarget):
    """The tables of a PostgreSQL database."""

    def __init__(self, url: sa.URL) -> None:
        named = url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url
        super().__init__(engine_for(named, _set_up))

    @contextmanager
    def _transaction(self, connection: sa.Connection, to: Destination) -> Iterator[None]:
        with super()._transaction(connection, to):
            appending = to.mode == "append" and to.new_columns == "refuse" and to.wider_types == "refuse" and not to.key
            if not appending or not sa.inspect(connection).has_table(to.table, to.schema):
                self._lock(connection, f"{to.schema or ''}.{table_key(to.table)}")
            yield

    def _lock(self, connection: sa.Connection, what: str) -> None:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(f"sluice {what}", 0))))

    def _widening(self, table: str, column: str, type_: str) -> tuple[str, ...]:
        return (f"ALTER TABLE {table} ALTER COLUMN {column} TYPE {type_} USING {column}::{type_}",)

    def _writer(self, connection: sa.Connection, table: str, plan: LoadPlan) -> Writer:
        copies = connection.dialect.driver == "psycopg"
        return (CopyWriter if copies else InsertWriter)(connection, table, plan, self._refusal)


class CopyWriter(InsertWriter):
    """Sends batches by COPY in CSV: what Arrow writes, PostgreSQL reads."""

    def __init__(self, connection: sa.Connection, table: str, plan: LoadPlan, refusal: Refusal) -> None:
        super().__init__(connection, table, plan, refusal)
        quote = connection.dialect.identifier_preparer.quote_identifier
        columns = ", ".join(quote(name) for name in plan.schema.names)
        cursor: Any = connection.connection.driver_connection.cursor()  # type: ignore[union-attr]
        copy = f"COPY {table} ({columns}) FROM STDIN (FORMAT csv, HEADER)"
        self._command = cursor.copy(copy.replace("%%", "%"))  # quoted for a driver that looks for parameters
        self._copy: Any = None
        self._line = 2
        self._sent: deque[tuple[int, int, pa.RecordBatch]] = deque(maxlen=BATCHES_REMEMBERED)

    def write(self, rows: pa.RecordBatch) -> None:
        """Send the rows. Raises `RowRefused`, perhaps for rows that were sent before."""
        rows = pa.record_batch([_as_text(one) for one in rows.columns], names=rows.schema.names)
        self._sent.append((self._line, self.rows, rows))
        with pa.BufferOutputStream() as stream:
            pa.csv.write_csv(rows, stream, pa.csv.WriteOptions(include_header=False))
            sent = stream.getvalue().to_pybytes()
        self._line += sent.count(b"\n")
        try:
            if self._copy is None:
                self._copy = self._command.__enter__()
                self._copy.write(b"-\n")  # the server counts line breaks in values only after the first line has ended
            self._copy.write(sent)
        except self._dbapi_error as error:
            raise self._row_refused(error, self._row(error)) from error

    def finish(self) -> None:
        """End the COPY. Raises `RowRefused` if the server refuses one of the last rows."""
        copy, self._copy = self._copy, None
        try:
            if copy is not None:
                self._command.__exit__(None, None, None)
        except self._dbapi_error as error:
            raise self._row_refused(error, self._row(error)) from error

    def close(self) -> None:
        """Abort a COPY that was not finished."""
        if self._copy is not None:
            with suppress(self._dbapi_error):
                self._command.__exit__(InterruptedError, InterruptedError("the load was given up"), None)

    @property
    def _dbapi_error(self) -> type[Exception]:
        error: type[Exception] = self._connection.dialect.loaded_dbapi.Error
        return error

    def _row(self, error: Any) -> int | None:
        """Return the row of the server's error, from its line number, which counts line breaks in values, too."""
        found = re.match(r"COPY .*?, line (\d+)", str(error.diag.context or ""))
        if found is None:
            return None
        line = int(found[1])
        for first_line, first_row, rows in reversed(self._sent):
            if first_line <= line:
                breaks = [pc.count_substring(one, "\n") for one in rows.columns if pa.types.is_string(one.type)]
                ends: int = first_line
                for row in range(rows.num_rows):
                    ends += 1 + sum(one[row].as_py() or 0 for one in breaks)
                    if line < ends:
                        return int(first_row + row)
        return None


def _as_text(values: pa.Array) -> pa.Array:
    """Return values as COPY reads them, where Arrow would write them differently."""
    if pa.types.is_binary(values.type):
        return pa.array([None if one is None else "\\x" + one.hex() for one in values.to_pylist()], pa.string())
    return values.cast(pa.string()) if pa.types.is_temporal(values.type) else values


def _set_up(connection: Any, _record: object) -> None:
    connection.cursor().execute("SET TIME ZONE 'UTC'")
    connection.commit()
