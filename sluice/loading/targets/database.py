"""Loads into a table of a SQL database: what all databases have in common."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, Final, Self

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, NoSuchTableError, SQLAlchemyError
from sqlalchemy.sql.elements import quoted_name
from sqlalchemy.types import TypeEngine

from sluice.loading.errors import AlreadyLoaded, RefusedFile, TargetFailed
from sluice.loading.targets import register
from sluice.loading.targets.plan import (
    Destination,
    FileVersion,
    LoadPlan,
    PastLoad,
    TableColumn,
    key_of,
    loaded_by,
    make_plan,
)
from sluice.loading.targets.sql_types import arrow_type, sql_type
from sluice.loading.targets.writing import ROW_NUMBER, InsertWriter, TableLoad, Writer
from sluice.tables import claim_table, owners_table, table_stays

_KEPT_SECONDS: Final = 60
"""Seconds without use after which a connection is made anew: servers and firewalls close silent ones."""
_STAGING: Final = "sluice_staging"
"""The temporary table for rows that are merged into another one."""
_KEYS: Final = "sluice_keys"
"""The temporary table for the keys of a file, to be looked up in its table."""


@lru_cache(maxsize=16)
def engine_for(url: sa.URL, set_up: Callable[[Any, Any], None] | None = None) -> sa.Engine:
    """Return an engine without open connections; it is kept because it has the statements that it compiled.

    ``set_up`` is called with each new connection of the driver.
    """
    engine = sa.create_engine(url, poolclass=sa.NullPool, hide_parameters=True)
    if set_up is not None:
        sa.event.listen(engine, "connect", set_up)
    return engine


class DatabaseTarget:
    """The tables of one database; subclasses override what differs."""

    holds_keys = True
    """Whether the tables themselves refuse a second row with the same primary key."""
    _keeps_connection = True
    """Whether one connection stays open between two uses, until the target is closed."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._kept: sa.Connection | None = None
        self._kept_since = 0.0
        self._registered = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what is open."""
        if self._kept is not None:
            self._kept.close()
        self._kept = None

    def plan(self, to: Destination, found: pa.Schema) -> LoadPlan:
        """Return how a file with the columns ``found`` would go into the table as it is now; nothing is changed.

        Raises `RefusedFile`, `sluice.TableRefused` and `TargetFailed`.
        """
        with self._connected() as connection:
            return self._plan(connection, to, found, table_stays(connection, to.table, **to.claim))

    def is_loaded(self, to: Destination, file: FileVersion) -> bool:
        """Return whether the table exists and has this version of the file. Raises `TargetFailed`."""
        with self._connected() as connection:
            there = self._is_registered(connection) and sa.inspect(connection).has_table(to.table, to.schema)
            try:
                return there and register.is_entered(connection, to, file)
            except DBAPIError:
                connection.rollback()
                register.check_form(connection)
                raise

    def history(self, table: str, count: int) -> list[PastLoad]:
        """Return the last ``count`` loads into a table, named with its schema; oldest first. Raises `TargetFailed`."""
        with self._connected() as connection:
            return register.history(connection, table, count) if self._is_registered(connection) else []

    @contextmanager
    def load(self, to: Destination, plan: LoadPlan, file: FileVersion, *, unit: str = "line") -> Iterator[TableLoad]:
        """Load a file in one transaction, which commits if the block is left without an error.

        ``unit`` is what the places of rows count, for messages. Raises `AlreadyLoaded`, `RefusedFile`,
        `sluice.TableRefused` and `TargetFailed`; the table is then as it was before.
        """
        with self._connected() as connection:
            registered = self._is_registered(connection)
            connection.rollback()
            if not registered:
                with self._begun(connection):
                    self._lock(connection, "register")
                    register.LOADS.create(connection, checkfirst=True)
                    owners_table().create(connection, checkfirst=True)
            with self._transaction(connection, to):
                claim_table(connection, to.table, **to.claim)  # first: what is another flow's is not looked at
                plan = self._checked_plan(connection, to, plan)
                if not plan.there:
                    register.forget(connection, to)
                elif register.is_entered(connection, to, file):
                    raise AlreadyLoaded
                elif to.mode == "append":
                    register.check_not_grown(connection, to, file)
                self._shape(connection, to, plan)
                with self._undone_on_error(connection, to, plan):
                    register.enter(connection, to, file)
                    load = self._start(connection, to, plan, unit)
                    try:
                        yield load
                        load.finish()
                        register.counted(connection, to, file, load.quality)
                    finally:
                        load.close()

    def _checked_plan(self, connection: sa.Connection, to: Destination, made: LoadPlan) -> LoadPlan:
        plan = made
        if tuple(self._columns(connection, to) or ()) != made.there:
            plan = self._plan(connection, to, made.schema, stays=True)
        if plan.misfits and to.wider_types == "refuse":
            raise RefusedFile("; ".join(str(one) for one in plan.misfits))
        if plan.schema != made.schema:
            raise TargetFailed(f"the table {to.full_name} was changed by another load at the same time", transient=True)
        return plan

    # ------------------------------------------------------------------------------------ what databases differ in

    def _lock(self, connection: sa.Connection, what: str) -> None:
        """Take the lock of this name until the transaction ends. Most databases need none."""

    @contextmanager
    def _begun(self, connection: sa.Connection) -> Iterator[None]:
        """Begin a transaction that will write."""
        with connection.begin():
            yield

    @contextmanager
    def _transaction(self, connection: sa.Connection, to: Destination) -> Iterator[None]:
        """Begin a transaction in which nobody else changes the columns of the table."""
        del to
        with self._begun(connection):
            yield

    @contextmanager
    def _undone_on_error(self, connection: sa.Connection, to: Destination, plan: LoadPlan) -> Iterator[None]:
        """Undo after an error what a rollback does not."""
        del connection, to, plan
        yield

    def _columns(self, connection: sa.Connection, to: Destination) -> list[TableColumn] | None:
        try:
            found = sa.inspect(connection).get_columns(to.table, to.schema)
        except NoSuchTableError:
            return None
        return [TableColumn(one["name"], arrow_type(one["type"]), self._in_sql(one["type"])) for one in found]

    def _widening(self, table: str, column: str, type_: str) -> tuple[str, ...]:
        """Return the statements that make a column wide enough."""
        return (f"ALTER TABLE {table} ALTER COLUMN {column} TYPE {type_}",)

    def _check_widening(self, connection: sa.Connection, table: str, column: str, type_: pa.DataType) -> None:
        """Raise `RefusedFile` if existing values would change in the wider type."""
        if pa.types.is_floating(type_):
            beyond = f"SELECT 1 FROM {table} WHERE {column} NOT BETWEEN -{2**53} AND {2**53} LIMIT 1"
            if run(connection, beyond).first():
                raise RefusedFile(f"{column} of {table} has integers that a floating-point number would round")

    def _update(self, table: str, staging: str, columns: Sequence[str], same: str) -> str:
        changes = ", ".join(f"{one} = {staging}.{one}" for one in columns)
        return f"UPDATE {table} SET {changes} FROM {staging} WHERE {same}"

    def _writer(self, connection: sa.Connection, table: str, plan: LoadPlan) -> Writer:
        return InsertWriter(connection, table, plan, self._refusal)

    def _refusal(self, error: Exception) -> str | None:
        """Return what is wrong with a row, if that is what the database's error says; otherwise None."""
        dbapi = self._engine.dialect.loaded_dbapi
        of_rows = (dbapi.IntegrityError, dbapi.DataError)
        return self._words(error) if isinstance(getattr(error, "orig", error), of_rows) else None

    def _words(self, error: Exception) -> str:
        return str(getattr(error, "orig", error)).strip()

    # -------------------------------------------------------------------------------------------------- the steps

    def _is_registered(self, connection: sa.Connection) -> bool:
        """Return whether the table of loads exists; it is not removed while a file is loaded."""
        self._registered = self._registered or sa.inspect(connection).has_table(register.LOADS.name)
        return self._registered

    def _plan(self, connection: sa.Connection, to: Destination, found: pa.Schema, stays: bool) -> LoadPlan:
        plan = make_plan(to, found, self._columns(connection, to) if stays else None)
        table = self._quoted(to)
        misfits = (
            replace(one, statements=self._widening(table, *self._column(one.there.name, one.needed)))
            for one in plan.misfits
        )
        return replace(plan, misfits=tuple(misfits))

    def _shape(self, connection: sa.Connection, to: Destination, plan: LoadPlan) -> None:
        table = self._quoted(to)
        if not plan.there:
            key = key_of(to, plan.schema)
            types = {one.name: sql_type(one.type, keys=len(key) if one.name in key else 0) for one in plan.schema}
            columns = [sa.Column(quoted_name(name, True), type_, autoincrement=False) for name, type_ in types.items()]
            constraint = [sa.PrimaryKeyConstraint(*key)] if key else []
            name = quoted_name(to.table, True)
            made = sa.Table(name, sa.MetaData(), *columns, *constraint, schema=to.schema, **self._table_options())
            made.create(connection)
        for added in plan.added:
            column, type_ = self._column(added, plan.schema.field(added).type)
            run(connection, f"ALTER TABLE {table} ADD COLUMN {column} {type_}")
        for one in plan.misfits:
            self._check_widening(connection, table, self._quote(one.there.name), one.needed)
            for statement in one.statements:
                run(connection, statement)

    def _table_options(self) -> dict[str, Any]:
        return {}

    def _start(self, connection: sa.Connection, to: Destination, plan: LoadPlan, unit: str) -> TableLoad:
        table = self._quoted(to)
        key = key_of(to, plan.schema)
        end: Callable[[int], None] | None = None
        if to.mode == "upsert":
            columns = ", ".join(self._quote(name) for name in plan.schema.names)
            run(connection, f"CREATE TEMPORARY TABLE {_STAGING} AS SELECT {columns} FROM {table} LIMIT 0")
            end = partial(self._merge, connection, to, plan.schema)
        elif to.mode == "replace" and run(connection, f"SELECT 1 FROM {table} LIMIT 1").first():
            run(connection, f"DELETE FROM {table}")
            end = to.check_not_emptied
        writer = self._writer(connection, _STAGING if to.mode == "upsert" else table, plan)
        return TableLoad(writer, plan, key=key, unit=unit, end=end, known=partial(self._known, connection, to, plan))

    def _known(
        self, connection: sa.Connection, to: Destination, plan: LoadPlan, keys: Iterable[pa.RecordBatch]
    ) -> list[tuple[str, list[int]]]:
        """Return the rows whose key the table has already: see `writing.Known`."""
        table = self._quoted(to)
        schema = pa.schema([*map(plan.schema.field, key_of(to, plan.schema)), (ROW_NUMBER, pa.int64())])
        *columns, number = map(self._quote, schema.names)
        made = f"SELECT {', '.join(columns)}, 0 AS {number} FROM {table} LIMIT 0"
        run(connection, f"CREATE TEMPORARY TABLE {_KEYS} AS {made}")
        writer = self._writer(connection, _KEYS, LoadPlan(schema, ()))
        try:
            for batch in keys:
                writer.write(batch)
            writer.finish()
        finally:
            writer.close()
        same = " AND ".join(f"{table}.{one} = {_KEYS}.{one}" for one in columns)
        there = f"SELECT {number} FROM {_KEYS} WHERE EXISTS (SELECT 1 FROM {table} WHERE {same}) ORDER BY {number}"
        rows = [int(row) for (row,) in run(connection, there)]
        self._drop(connection, _KEYS)
        loads = register.history(connection, to.full_name, 1000) if rows else []
        return [(loaded_by([one for one in loads if one.quality.rows]), rows)]

    def _merge(self, connection: sa.Connection, to: Destination, schema: pa.Schema, _rows: int) -> None:
        """Update the rows whose key the table has, and insert the others."""
        table = self._quoted(to)
        key = [self._quote(name) for name in key_of(to, schema)]
        columns = [self._quote(name) for name in schema.names]
        keys = ", ".join(key)
        twice = f"SELECT {keys} FROM {_STAGING} GROUP BY {keys} HAVING COUNT(*) > 1 LIMIT 1"
        if found := run(connection, twice).first():
            values = ", ".join(str(value) for value in found)
            raise RefusedFile(f"two rows have the same key ({keys}) of {to.full_name}: {values}")
        same = " AND ".join(f"{table}.{one} = {_STAGING}.{one}" for one in key)
        if others := [one for one in columns if one not in key]:
            run(connection, self._update(table, _STAGING, others, same))
        names = ", ".join(columns)
        new = f"SELECT {names} FROM {_STAGING} WHERE NOT EXISTS (SELECT 1 FROM {table} WHERE {same})"
        run(connection, f"INSERT INTO {table} ({names}) {new}")
        self._drop(connection, _STAGING)

    def _drop(self, connection: sa.Connection, temporary: str) -> None:
        run(connection, f"DROP TABLE {temporary}")

    # ------------------------------------------------------------------------------------------------------ words

    def _quote(self, name: str) -> str:
        quoted: str = self._engine.dialect.identifier_preparer.quote_identifier(name)
        return quoted

    def _quoted(self, to: Destination) -> str:
        return ".".join(self._quote(part) for part in (to.schema, to.table) if part)

    def _column(self, name: str, type_: pa.DataType) -> tuple[str, str]:
        return self._quote(name), self._in_sql(sql_type(type_))

    def _in_sql(self, type_: TypeEngine[Any]) -> str:
        try:
            return type_.compile(dialect=self._engine.dialect)
        except SQLAlchemyError:
            return str(type_)

    @contextmanager
    def _connected(self) -> Iterator[sa.Connection]:
        try:
            with self._lent() as connection:
                yield connection
        except (DBAPIError, self._engine.dialect.loaded_dbapi.Error) as error:
            if (refusal := self._refusal(error)) is not None:
                raise RefusedFile(f"the database refuses a row: {refusal}") from error
            wrong = isinstance(getattr(error, "orig", error), self._engine.dialect.loaded_dbapi.ProgrammingError)
            raise TargetFailed(self._words(error), transient=not wrong) from error

    @contextmanager
    def _lent(self) -> Iterator[sa.Connection]:
        """Lend a connection, and keep it for the next use unless an error ends this one."""
        if time.monotonic() - self._kept_since > _KEPT_SECONDS:
            self.close()
        connection, self._kept = self._kept or self._engine.connect(), None
        try:
            yield connection
            connection.rollback()
        except BaseException:
            connection.close()
            raise
        self._kept, self._kept_since = connection, time.monotonic()
        if not self._keeps_connection:
            self.close()


def run(connection: sa.Connection, statement: str) -> sa.CursorResult[Any]:
    """Execute SQL without values, whose names are quoted for the dialect."""
    return connection.exec_driver_sql(statement)
