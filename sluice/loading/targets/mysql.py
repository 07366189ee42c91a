"""Loads into MySQL and MariaDB, which cannot roll CREATE TABLE back: what a failed load has created is dropped."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from sluice.loading.errors import TargetFailed
from sluice.loading.targets.database import DatabaseTarget, engine_for, run
from sluice.loading.targets.plan import Destination, LoadPlan, TableColumn
from sluice.loading.targets.writing import InsertWriter, RowRefused, Writer
from sluice.tables import table_key

WAIT_SECONDS: Final = 300
"""Seconds for which a load waits for another one that changes the columns of the same table."""

_DATA_ERRORS: Final = frozenset({1264, 1265, 1292, 1366, 1406, 1411})
"""Errors of data (out of range, truncated, incorrect value, too long) that the driver does not all report as such."""


class MysqlTarget(DatabaseTarget):
    """The tables of a MySQL or MariaDB server, where a schema is a database."""

    def __init__(self, url: sa.URL) -> None:
        named = url.set(drivername=f"{url.drivername}+pymysql") if "+" not in url.drivername else url
        super().__init__(engine_for(named, _set_up))

    @contextmanager
    def _transaction(self, connection: sa.Connection, to: Destination) -> Iterator[None]:
        """Begin a transaction under a lock by name, which MySQL does not release with the transaction."""
        digest = hashlib.sha256(f"{to.schema or ''}.{table_key(to.table)}".encode()).hexdigest()
        name = f"sluice {digest[:32]}"
        lock = sa.select(sa.func.get_lock(name, WAIT_SECONDS))
        if not connection.scalar(lock):
            raise TargetFailed(f"another load of the table {to.full_name} takes too long", transient=True)
        connection.commit()
        try:
            with super()._transaction(connection, to):
                yield
        finally:
            if not connection.invalidated:
                connection.scalar(sa.select(sa.func.release_lock(name)))
                connection.commit()

    @contextmanager
    def _undone_on_error(self, connection: sa.Connection, to: Destination, plan: LoadPlan) -> Iterator[None]:
        try:
            yield
        except BaseException:
            if not plan.there and not connection.invalidated:  # it was made here, under the lock
                run(connection, "ROLLBACK")
                run(connection, f"DROP TABLE IF EXISTS {self._quoted(to)}")
            raise

    def _columns(self, connection: sa.Connection, to: Destination) -> list[TableColumn] | None:
        """Read the columns of the table here: SQLAlchemy leaves a backtick in a name doubled."""
        found = super()._columns(connection, to)
        return found and [replace(one, name=one.name.replace("``", "`")) for one in found]

    def _drop(self, connection: sa.Connection, temporary: str) -> None:
        run(connection, f"DROP TEMPORARY TABLE {temporary}")  # without that word it would end the transaction

    def _widening(self, table: str, column: str, type_: str) -> tuple[str, ...]:
        return (f"ALTER TABLE {table} MODIFY COLUMN {column} {type_}",)

    def _update(self, table: str, staging: str, columns: Sequence[str], same: str) -> str:
        changes = ", ".join(f"{table}.{one} = {staging}.{one}" for one in columns)
        return f"UPDATE {table} JOIN {staging} ON {same} SET {changes}"

    def _table_options(self) -> dict[str, Any]:
        """Return options with which texts that differ are different: in case, accents and spaces at their end, too."""
        dialect: Any = self._engine.dialect
        collation = "utf8mb4_nopad_bin" if dialect.is_mariadb else "utf8mb4_0900_bin"
        return {
            f"{name}_{what}": value
            for name in ("mysql", "mariadb")
            for what, value in (("charset", "utf8mb4"), ("collate", collation), ("engine", "InnoDB"))
        }

    def _writer(self, connection: sa.Connection, table: str, plan: LoadPlan) -> Writer:
        return RowsWriter(connection, table, plan, self._refusal)

    def _refusal(self, error: Exception) -> str | None:
        original = getattr(error, "orig", error)
        code = original.args[0] if original.args else None
        return self._words(error) if code in _DATA_ERRORS else super()._refusal(error)

    def _words(self, error: Exception) -> str:
        original = getattr(error, "orig", error)
        return str(original.args[1] if len(original.args) > 1 else original).strip()


class RowsWriter(InsertWriter):
    """Inserts batches with many rows a statement; LOAD DATA LOCAL would let the server request any file."""

    def write(self, rows: pa.RecordBatch) -> None:
        """Send the rows. Raises `RowRefused`."""
        columns = []
        for name, values in zip(rows.schema.names, rows.columns, strict=True):
            if pa.types.is_floating(values.type):
                columns.append(self._finite(name, values))
            else:  # a moment goes in as its time in UTC
                columns.append(values.cast(pa.timestamp("us")) if pa.types.is_timestamp(values.type) else values)
        super().write(pa.record_batch(columns, names=rows.schema.names))

    def _finite(self, name: str, values: pa.Array) -> pa.Array:
        infinite = pc.index(pc.is_inf(values), True).as_py()
        if infinite >= 0:
            raise RowRefused(f"the column {name!r} cannot hold an infinite number", self.rows + infinite)
        nan = pc.is_nan(values)
        self.nans[name] += pc.sum(nan).as_py() or 0
        return pc.if_else(nan, pa.scalar(None, values.type), values)


def _set_up(connection: Any, _record: object) -> None:
    """Set a connection up so that nothing is truncated, rounded or replaced without an error, and times are in UTC."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SET SESSION time_zone = '+00:00', sql_mode = "
            "CONCAT_WS(',', @@sql_mode, 'STRICT_ALL_TABLES', 'NO_AUTO_VALUE_ON_ZERO', 'NO_ENGINE_SUBSTITUTION')"
        )
    connection.commit()
