"""Loads into SQLite by its Arrow driver (ADBC), which inserts whole columns."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import adbc_driver_manager
import adbc_driver_sqlite
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from adbc_driver_sqlite import dbapi
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.base import SQLiteDialect, SQLiteTypeCompiler

from sluice.loading.errors import RefusedFile
from sluice.loading.targets.database import DatabaseTarget, engine_for, run
from sluice.loading.targets.plan import Destination, LoadPlan, TableColumn
from sluice.loading.targets.writing import InsertWriter, Refusal, RowRefused, Writer

WAIT_SECONDS: Final = 300
"""Seconds for which a load waits for other loads that write to the same file."""
_PAGE_BYTES: Final = 16 * 1024
"""Page size of a new file; inserts and commit take a fifth more time with the usual 4 KiB."""

_BY_AFFINITY: Final[tuple[tuple[str, pa.DataType | None], ...]] = (
    ("BOOL", pa.bool_()),
    ("DATETIME", pa.timestamp("us")),
    ("TIMESTAMP WITH TIME ZONE", pa.timestamp("us", tz="UTC")),
    ("TIMESTAMP", pa.timestamp("us")),
    ("DATE", pa.date32()),
    ("TIME", pa.time64("us")),
    ("INT", pa.int64()),
    ("CHAR", pa.string()),
    ("CLOB", pa.string()),
    ("TEXT", pa.string()),
    ("BLOB", pa.binary()),
    ("REAL", pa.float64()),
    ("FLOA", pa.float64()),
    ("DOUB", pa.float64()),
)
"""What a column holds, by the first of these names that is part of its declared type: SQLite's own rules, and before
them types that it does not have, whose values are written in ISO 8601.
"""
NO_TYPE: Final = "of no type"
_LOOKS_NUMERIC: Final = r"^[ \t\n\v\f\r]*[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[ \t\n\v\f\r]*$"
"""Text that SQLite converts to a number in a column of numeric affinity."""
_SURELY_KEPT: Final = r"^(?:0|-?[1-9][0-9]{0,14}|-?(?:0|[1-9][0-9]{0,8})\.[0-9]{0,5}[1-9])$"
"""The form of most numbers that come back as they were written."""
_CANONICAL: Final = re.compile(r"(?:0|-?[1-9][0-9]*|-?(?:0|[1-9][0-9]*)\.[0-9]+)")
_OF_A_ROW: Final = re.compile("constraint failed|datatype mismatch")
_DECLARED_NUMERIC: Final = re.compile("NUM|DEC|MONEY")


class SqliteTarget(DatabaseTarget):
    """The tables of a SQLite file."""

    def __init__(self, url: sa.URL) -> None:
        if not url.database or url.database == ":memory:":
            raise ValueError("a SQLite database in memory is gone as soon as the load ends: name a file")
        file = Path(url.database)
        file.parent.mkdir(parents=True, exist_ok=True)
        named = sa.URL.create("sqlite+sluice_adbc", database=str(file.resolve()))
        super().__init__(engine_for(named))

    @contextmanager
    def _begun(self, connection: sa.Connection) -> Iterator[None]:
        with super()._begun(connection):
            run(connection, "BEGIN IMMEDIATE")  # one load after the other: an upgrade from reading would fail at once
            yield

    @contextmanager
    def _transaction(self, connection: sa.Connection, to: Destination) -> Iterator[None]:
        with super()._transaction(connection, to):
            yield
        _let_others_read(connection.connection.driver_connection)

    def _columns(self, connection: sa.Connection, to: Destination) -> list[TableColumn] | None:
        if to.schema not in {None, "main"}:
            raise RefusedFile(f"SQLite has no schema {to.schema!r}: leave `schema` out of the contract")
        found = run(connection, f"PRAGMA main.table_xinfo({self._quote(to.table)})").mappings().all()
        return [TableColumn(one["name"], held_by(one["type"]), one["type"] or NO_TYPE) for one in found] or None

    def _widening(self, table: str, column: str, type_: str) -> tuple[str, ...]:
        wider = self._quote("sluice_wider")
        return (
            f"ALTER TABLE {table} ADD COLUMN {wider} {type_}",
            f"UPDATE {table} SET {wider} = {column}",
            f"ALTER TABLE {table} DROP COLUMN {column}",
            f"ALTER TABLE {table} RENAME COLUMN {wider} TO {column}",
        )

    def _writer(self, connection: sa.Connection, table: str, plan: LoadPlan) -> Writer:
        return ColumnWriter(connection, table, plan, self._refusal)

    def _refusal(self, error: Exception) -> str | None:
        """Return what is wrong with a row; the driver calls it an internal error if other rows follow it."""
        said = self._words(error)
        return said if _OF_A_ROW.search(said) else super()._refusal(error)

    def _words(self, error: Exception) -> str:
        return re.sub(r"^[A-Z_]+: [Ff]ailed to [a-z ]+: ", "", super()._words(error))


def held_by(declared: str) -> pa.DataType | None:
    """Return what a column of that declared type holds unchanged; None for text, except what looks like a number."""
    upper = declared.upper()
    return next((type_ for part, type_ in _BY_AFFINITY if part in upper), None)


class ColumnWriter(InsertWriter):
    """Inserts batches a column at a time."""

    def __init__(self, connection: sa.Connection, table: str, plan: LoadPlan, refusal: Refusal) -> None:
        super().__init__(connection, table, plan, refusal)
        self._cursor: Any = connection.connection.cursor()
        self._numeric = {
            one.name: _DECLARED_NUMERIC.search(one.declared.upper()) is not None
            for one in plan.there
            if one.type is None and one.declared != NO_TYPE
        }

    def write(self, rows: pa.RecordBatch) -> None:
        """Insert the rows. Raises `RowRefused`."""
        columns = [_as_stored(one) for one in rows.columns]
        for name, values in zip(rows.schema.names, columns, strict=True):
            if pa.types.is_floating(values.type):
                self.nans.update({name: pc.sum(pc.is_nan(values)).as_py() or 0})
            if name in self._numeric and pa.types.is_string(values.type):
                self._check_kept(name, values)
        before = self._changes()
        try:
            self._cursor.executemany(self._statement, pa.record_batch(columns, names=rows.schema.names))
        except self._connection.dialect.loaded_dbapi.Error as error:
            done = self._changes() - before
            row = self.rows + done if done < rows.num_rows else None
            raise self._row_refused(error, row) from error

    def close(self) -> None:
        """Close what is open."""
        self._cursor.close()

    def _changes(self) -> int:
        """Return how many rows this connection has changed; triggers of the table add to those that it has written."""
        self._cursor.execute("SELECT total_changes()")
        ((changes,),) = self._cursor.fetchall()
        return int(changes)

    def _check_kept(self, name: str, values: pa.StringArray) -> None:
        """Raise `RowRefused` for text that SQLite would convert to a number that does not give it back."""
        numbers = pc.match_substring_regex(values, _LOOKS_NUMERIC)
        doubtful = pc.and_not(numbers, pc.match_substring_regex(values, _SURELY_KEPT))
        for row in pc.indices_nonzero(doubtful).to_pylist():
            text = values[row].as_py()
            if not _comes_back(text, self._numeric[name]):
                raise RowRefused(
                    f"the column {name!r} would make another number of {text!r}; create it with the type TEXT",
                    self.rows + row,
                )


def _comes_back(text: str, same_value: bool) -> bool:
    """Return whether a column of numeric affinity gives the text back, or at least its value."""
    if not _CANONICAL.fullmatch(text):
        return False
    if "." not in text:
        return -(2**63) <= int(text) < 2**63
    if Decimal(repr(float(text))) != Decimal(text):
        return False
    digits = len(text.lstrip("-0.").replace(".", ""))
    return same_value or (digits <= 15 and not text.endswith("0"))  # noqa: PLR2004 - so many always come back


def _as_stored(values: pa.Array) -> pa.Array:
    """Return values as SQLite stores them: text for types that it does not have."""
    found = pa.types
    textual = found.is_temporal(values.type) or found.is_decimal(values.type) or values.type == pa.uint64()
    return values.cast(pa.string()) if textual else values


class _SqliteCursor(dbapi.Cursor):
    @property
    def description(self) -> Any:
        """None after a statement without a result, as the standard says."""
        return super().description or None


class _SqliteConnection(dbapi.Connection):
    def cursor(self, **options: Any) -> _SqliteCursor:
        return _SqliteCursor(self, options.get("adbc_stmt_kwargs"), dbapi_backend=self._backend)


def _connect(file: str | None) -> _SqliteConnection:
    database = adbc_driver_sqlite.connect(file)
    try:
        return _SqliteConnection(database, adbc_driver_manager.AdbcConnection(database), autocommit=True)
    except BaseException:
        database.close()
        raise


def _let_others_read(connection: Any) -> None:
    """Have the file use a write-ahead log from now on, with which others can read while a load writes.

    A new file has none until its first load is over: rows would be written twice, and there is nothing to read. While
    another load has the file locked the mode stays as it is; the next connection changes it.
    """
    with connection.cursor() as cursor, suppress(dbapi.OperationalError):
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.fetchall()


class _SqliteTypeNames(SQLiteTypeCompiler):
    def visit_datetime(self, type_: sa.DateTime, **options: Any) -> str:
        """Name the type so that a later load sees that the column has moments."""
        return "TIMESTAMP WITH TIME ZONE" if type_.timezone else super().visit_datetime(type_, **options)


class ArrowSqlite(SQLiteDialect):
    """SQLAlchemy's dialect of SQLite with the Arrow driver."""

    driver = "sluice_adbc"
    default_paramstyle = "qmark"
    supports_statement_cache = True
    type_compiler_cls = _SqliteTypeNames
    postfetch_lastrowid = False

    @classmethod
    def import_dbapi(cls) -> Any:
        """Return the driver, with what the dialect expects beyond the standard."""
        with closing(_connect(None)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT sqlite_version()")
            ((version,),) = cursor.fetchall()
        return types.SimpleNamespace(**{**vars(dbapi), "sqlite_version_info": tuple(map(int, version.split(".")))})

    def connect(self, *_: Any, **options: Any) -> Any:
        """Open the file; transactions are begun explicitly."""
        return _connect(options["database"])

    def on_connect(self) -> Any:
        """Return a function that prepares each connection for several loads at once, and for readers meanwhile."""

        def prepare(connection: Any) -> None:
            with connection.cursor() as cursor:
                cursor.execute(f"PRAGMA busy_timeout={WAIT_SECONDS * 1000}")
                cursor.fetchall()
                cursor.execute(f"PRAGMA page_size={_PAGE_BYTES}")
                cursor.execute("PRAGMA page_count")
                ((pages,),) = cursor.fetchall()
            if pages:
                _let_others_read(connection)

        return prepare

    def initialize(self, connection: sa.Connection) -> None:
        """Do nothing: SQLAlchemy would ask for properties that loading does not need."""
        del connection
        self.server_version_info = self.loaded_dbapi.sqlite_version_info
        self.default_schema_name = "main"

    def do_begin(self, dbapi_connection: Any) -> None:
        """Do nothing: reading needs no transaction, and a load begins its own."""

    def do_commit(self, dbapi_connection: Any) -> None:
        """Commit the transaction, if there is one."""
        self._end(dbapi_connection, "COMMIT")

    def do_rollback(self, dbapi_connection: Any) -> None:
        """Roll the transaction back, unless SQLite has done so itself."""
        self._end(dbapi_connection, "ROLLBACK")

    def _end(self, connection: Any, how: str) -> None:
        with connection.cursor() as cursor:
            try:
                cursor.execute(how)
            except self.loaded_dbapi.Error as error:
                if "no transaction is active" not in str(error):
                    raise


registry.register("sqlite.sluice_adbc", __name__, ArrowSqlite.__name__)
