"""Loads into DuckDB, which reads Arrow's batches in place."""

from __future__ import annotations

import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import registry
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.sql.compiler import GenericTypeCompiler

from sluice.loading.targets.database import DatabaseTarget, engine_for, run
from sluice.loading.targets.plan import Destination, LoadPlan, TableColumn
from sluice.loading.targets.writing import InsertWriter, Writer

WAIT_SECONDS: Final = 300
"""Seconds for which a load waits for a process that has the file open: DuckDB admits only one writer."""
_PAUSE_SECONDS: Final = 0.2

_BATCH: Final = "sluice_batch"
_TYPES: Final[dict[str, pa.DataType]] = {
    "BOOLEAN": pa.bool_(),
    "TINYINT": pa.int8(),
    "SMALLINT": pa.int16(),
    "INTEGER": pa.int32(),
    "BIGINT": pa.int64(),
    "UTINYINT": pa.uint8(),
    "USMALLINT": pa.uint16(),
    "UINTEGER": pa.uint32(),
    "UBIGINT": pa.uint64(),
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "VARCHAR": pa.string(),
    "BLOB": pa.binary(),
    "DATE": pa.date32(),
    "TIME": pa.time64("us"),
    "TIMESTAMP_S": pa.timestamp("s"),
    "TIMESTAMP_MS": pa.timestamp("ms"),
    "TIMESTAMP": pa.timestamp("us"),
    "TIMESTAMP_NS": pa.timestamp("ns"),
    "TIMESTAMP WITH TIME ZONE": pa.timestamp("us", tz="UTC"),
}
_TURNS: Final[defaultdict[str, threading.Lock]] = defaultdict(threading.Lock)
"""A lock for each file: loads of one process share an instance of DuckDB, in which two at a time would collide."""


class DuckdbTarget(DatabaseTarget):
    """The tables of a DuckDB file."""

    _keeps_connection = False  # it keeps other processes out

    def __init__(self, url: sa.URL) -> None:
        if not url.database or url.database == ":memory:":
            raise ValueError("a DuckDB database in memory is gone as soon as the load ends: name a file")
        file = Path(url.database).resolve()
        file.parent.mkdir(parents=True, exist_ok=True)
        self._turn = _TURNS[str(file)]
        named = sa.URL.create("duckdb+sluice", database=str(file))
        super().__init__(engine_for(named))

    @contextmanager
    def _begun(self, connection: sa.Connection) -> Iterator[None]:
        with self._turn, super()._begun(connection):
            yield

    def _columns(self, connection: sa.Connection, to: Destination) -> list[TableColumn] | None:
        found = connection.exec_driver_sql(
            "SELECT column_name, data_type FROM duckdb_columns() WHERE database_name = current_database()"
            " AND schema_name = ? AND lower(table_name) = lower(?) ORDER BY column_index",
            (to.schema or "main", to.table),
        )
        return [TableColumn(name, held_by(type_), type_) for name, type_ in found] or None

    def _widening(self, table: str, column: str, type_: str) -> tuple[str, ...]:
        return (f"ALTER TABLE {table} ALTER COLUMN {column} SET DATA TYPE {type_}",)

    def _writer(self, connection: sa.Connection, table: str, plan: LoadPlan) -> Writer:
        return ArrowWriter(connection, table, plan, self._refusal)

    def _words(self, error: Exception) -> str:
        return super()._words(error).partition("\n\nLINE")[0]


def held_by(type_: str) -> pa.DataType | None:
    """Return what a column of that type holds unchanged; None if it gets text, which DuckDB converts or refuses."""
    if found := re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", type_):
        return pa.decimal128(int(found[1]), int(found[2]))
    return _TYPES.get(type_)


class ArrowWriter(InsertWriter):
    """Lets DuckDB read each batch."""

    def write(self, rows: pa.RecordBatch) -> None:
        """Insert the rows. Raises `RowRefused`."""
        quote = self._connection.dialect.identifier_preparer.quote_identifier
        columns = ", ".join(quote(name) for name in rows.schema.names)
        connection: Any = self._connection.connection.driver_connection
        connection.register(_BATCH, rows)
        try:
            run(self._connection, f"INSERT INTO {self._table} ({columns}) SELECT {columns} FROM {_BATCH}")
        except sa.exc.DBAPIError as error:
            raise self._row_refused(error) from error
        connection.unregister(_BATCH)


class _DuckdbConnection:
    """A connection as Python's standard defines it: DuckDB's cursors are connections with a transaction each."""

    def __init__(self, file: str) -> None:
        self._connection = _opened(file)
        self.register = self._connection.register
        self.unregister = self._connection.unregister
        self.execute = self._connection.execute
        self.close = self._connection.close

    def cursor(self) -> _DuckdbCursor:
        return _DuckdbCursor(self._connection)


class _DuckdbCursor:
    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def close(self) -> None:
        """Do nothing: the connection stays open."""


def _opened(file: str) -> duckdb.DuckDBPyConnection:
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            connection = duckdb.connect(file)
        except duckdb.IOException as error:
            if "lock" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            connection.execute("SET threads = 2; SET memory_limit = '256MB'")
            return connection


class _DuckdbTypeNames(GenericTypeCompiler):
    def visit_datetime(self, type_: sa.DateTime, **_: Any) -> str:
        return "TIMESTAMP WITH TIME ZONE" if type_.timezone else "TIMESTAMP"


class ArrowDuckdb(DefaultDialect):
    """The part of a SQLAlchemy dialect for DuckDB that loading needs."""

    name = "duckdb"
    driver = "sluice"
    default_paramstyle = "qmark"
    supports_statement_cache = True
    supports_native_boolean = True
    type_compiler_cls = _DuckdbTypeNames

    @classmethod
    def import_dbapi(cls) -> Any:
        """Return the driver."""
        return duckdb

    def connect(self, *_: Any, **options: Any) -> Any:
        """Open the file as soon as no other process has it open."""
        return _DuckdbConnection(options["database"])

    def initialize(self, connection: sa.Connection) -> None:
        """Do nothing: SQLAlchemy would ask for properties that loading does not need."""
        del connection
        self.default_schema_name = "main"

    def do_begin(self, dbapi_connection: Any) -> None:
        """Begin a transaction."""
        dbapi_connection.execute("BEGIN TRANSACTION")

    def do_commit(self, dbapi_connection: Any) -> None:
        """Commit the transaction."""
        dbapi_connection.execute("COMMIT")

    def do_rollback(self, dbapi_connection: Any) -> None:
        """Roll the transaction back, unless DuckDB has ended it itself."""
        with suppress(duckdb.TransactionException):
            dbapi_connection.execute("ROLLBACK")

    def has_table(self, connection: sa.Connection, table_name: str, schema: str | None = None, **_: Any) -> bool:
        """Return whether there is a table or view of this name: DuckDB ignores letter case."""
        names = (*self.get_table_names(connection, schema), *self.get_view_names(connection, schema))
        return table_name.casefold() in {name.casefold() for name in names}

    def get_table_names(self, connection: sa.Connection, schema: str | None = None, **_: Any) -> list[str]:
        """Of the schema."""
        return self._names(connection, "table", schema)

    def get_view_names(self, connection: sa.Connection, schema: str | None = None, **_: Any) -> list[str]:
        """Of the schema."""
        return self._names(connection, "view", schema)

    def _names(self, connection: sa.Connection, what: str, schema: str | None) -> list[str]:
        found = connection.exec_driver_sql(
            f"SELECT {what}_name FROM duckdb_{what}s() WHERE database_name = current_database() AND schema_name = ?",
            (schema or "main",),
        )
        return [name for (name,) in found]


registry.register("duckdb.sluice", __name__, ArrowDuckdb.__name__)
