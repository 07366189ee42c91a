"""Tables that belong to a flow: what a file or message names can never be somebody else's table."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sluice.errors import TableRefused

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

OWNERS: Final = "sluice_tables"
"""The table that says which flow each table belongs to."""

LONGEST_NAME: Final = 63
"""Bytes: PostgreSQL cuts longer names, so that two of them could be one table."""

MYSQL: Final = ("mysql", "mariadb")
"""Dialects of SQLAlchemy: a database is a schema there, and DDL ends the transaction."""

RESERVED: Final = ("sluice_", "sqlite_", "pg_", "information_schema", "mysql", "performance_schema", "sys.")


def claim_table(
    connection: Connection,
    name: str,
    *,
    flow: str,
    outside: bool,
    schema: str | None = None,
    spelling: str | None = None,
) -> None:
    """Return if the flow may write to the table ``name``, its own from now on; else raise `TableRefused`.

    Call it in the transaction that creates or fills the table: the claim holds if that transaction does.

    ``outside`` says that the name comes from a file or a message. Such a name never leads to a table that another flow
    made or that nobody claimed; and where a flow claims by its own code a table that exists only because of such a
    name, that one is renamed out of its way. Names are compared as the most forgiving database does: letter case and
    compatibility forms of Unicode make no other table. ``spelling`` is what the name was made of: another spelling
    that leads to the same table is refused. A claim from outside ends when its table is dropped.

    ``schema`` is the database's schema (MySQL: the database) that the table lies in; None: the connection's own.
    """
    import sqlalchemy as sa

    owners = owners_table()
    owners.create(connection, checkfirst=True)
    found = _find(connection, name, flow=flow, outside=outside, schema=schema, spelling=spelling, claimed=True)
    this = (owners.c.table_schema == found.schema) & (owners.c.table_key == found.key)
    row = {"flow": flow, "outside": outside, "spelling": spelling, "claimed_at": datetime.now(UTC).isoformat()}
    if found.moves and found.owner is not None and found.there is not None:
        moved = {**row, "flow": found.owner.flow, "outside": True, "spelling": found.owner.spelling}
        _move_away(connection, found.there, found.schema, moved)
    if found.owner is None or found.ended:
        connection.execute(sa.delete(owners).where(this))
        connection.execute(sa.insert(owners).values(table_schema=found.schema, table_key=found.key, **row))
    elif found.owner.outside and not outside:
        connection.execute(sa.update(owners).where(this).values(row))


def table_stays(
    connection: Connection,
    name: str,
    *,
    flow: str,
    outside: bool,
    schema: str | None = None,
    spelling: str | None = None,
) -> bool:
    """Whether `claim_table` would leave a table of this name where it is, for this flow; false: it would be renamed.

    Changes nothing. Raises `TableRefused` where `claim_table` would.
    """
    import sqlalchemy as sa

    there = sa.inspect(connection).has_table(OWNERS)
    found = _find(connection, name, flow=flow, outside=outside, schema=schema, spelling=spelling, claimed=there)
    return not found.moves


class _Found(NamedTuple):
    """What a claim comes upon."""

    key: str
    schema: str
    """Empty: the connection's own."""
    owner: Any
    """The row of the claim that is there."""
    there: str | None
    """The table, where that matters."""
    ended: bool
    """Whether that claim is void: it came from outside, and its table was dropped."""
    moves: bool
    """Whether the table is only there because of a name from outside, and has to make room for a flow."""


def _find(
    connection: Connection,
    name: str,
    *,
    flow: str,
    outside: bool,
    schema: str | None,
    spelling: str | None,
    claimed: bool,
) -> _Found:
    """Raises `TableRefused` if the flow may not claim the table; ``claimed``: the table of claims is there."""
    import sqlalchemy as sa

    check_name(name)
    key, owners = table_key(name), owners_table()
    where = "" if schema in {None, connection.dialect.default_schema_name} else str(schema)
    owner: Any = None
    if claimed:
        this = (owners.c.table_schema == where) & (owners.c.table_key == key)
        owner = connection.execute(sa.select(owners).where(this)).first()
    there = _there(connection, key, where) if outside or (owner and owner.outside) else None
    ended = bool(owner is not None and owner.outside and there is None)
    if owner is None and there is not None:
        raise TableRefused(
            f"the table {there!r} is there already and belongs to no flow, so a file's or message's name does not "
            f"lead to it: name it in the rule or the deployment, and the flow {flow} takes it over"
        )
    theirs = owner is not None and not ended and owner.flow != flow
    if theirs and not (owner.outside and not outside):
        raise TableRefused(f"the table {name!r} belongs to the flow {owner.flow}: the flow {flow} may not write to it")
    if (
        owner is not None
        and not ended
        and not theirs
        and outside
        and spelling
        and owner.spelling not in {None, spelling}
    ):
        raise TableRefused(
            f"the table {name!r} is filled from files named {owner.spelling!r}, and the name {spelling!r} leads to it "
            "too: rename the file, or name the table in a contract or a rule if both belong there"
        )
    return _Found(key, where, owner, there, ended, moves=theirs)


def check_name(name: str) -> None:
    """Raise `TableRefused` for what is no name of a table that a flow may write to."""
    if not name or not name.isprintable() or len(name.encode(errors="replace")) > LONGEST_NAME:
        raise TableRefused(f"{name[:80]!r} is no name for a table: at most {LONGEST_NAME} bytes of printable text")
    if table_key(name).startswith(RESERVED):
        raise TableRefused(
            f"the table {name!r} cannot be loaded into: names that begin so belong to the database or to Sluice"
        )


def table_key(name: str) -> str:
    """The name as the most forgiving database compares it."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).strip()


@cache
def owners_table() -> Table:
    """The table of claims; `claim_table` makes it where it is not there."""
    import sqlalchemy as sa

    return sa.Table(
        OWNERS,
        sa.MetaData(),
        sa.Column("table_schema", sa.String(63), primary_key=True),
        sa.Column("table_key", sa.String(255), primary_key=True),
        sa.Column("flow", sa.String(255), nullable=False),
        sa.Column("outside", sa.Boolean, nullable=False),
        sa.Column("spelling", sa.Text),
        sa.Column("claimed_at", sa.String(40), nullable=False),
        mysql_charset="utf8mb4",
        mysql_collate="utf8mb4_bin",  # the default would take two names for one where only an accent differs
        mariadb_charset="utf8mb4",
        mariadb_collate="utf8mb4_bin",
    )


def _there(connection: Connection, key: str, schema: str) -> str | None:
    """The table or view that answers to the key, if there is one."""
    import sqlalchemy as sa

    found, where = sa.inspect(connection), schema or None
    names = (*found.get_table_names(where), *found.get_view_names(where))
    return next((one for one in names if table_key(one) == key), None)


def _move_away(connection: Connection, there: str, schema: str, row: dict[str, Any]) -> None:
    """Rename the table that only a name from outside had made."""
    import sqlalchemy as sa

    key = table_key(there)
    number = 1
    while _there(connection, table_key(moved := _moved(key, number)), schema):
        number += 1
    connection.execute(sa.insert(owners_table()).values(table_schema=schema, table_key=table_key(moved), **row))
    preparer = connection.dialect.identifier_preparer
    table = ".".join(preparer.quote(part) for part in (schema, there) if part)
    to = ".".join(preparer.quote(part) for part in (schema if connection.dialect.name in MYSQL else "", moved) if part)
    connection.exec_driver_sql(f"ALTER TABLE {table} RENAME TO {to}")


def _moved(key: str, number: int) -> str:
    return f"from_file_{number}_{key}".encode()[:LONGEST_NAME].decode(errors="ignore")
