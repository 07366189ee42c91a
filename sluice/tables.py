"""Tables that belong to a flow: what a file or message names can never be somebody else's table."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from sluice.errors import TableRefused

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

OWNERS: Final = "sluice_tables"
"""The table that says which flow each table belongs to."""

LONGEST_NAME: Final = 63
"""Bytes: PostgreSQL cuts longer names, so that two of them could be one table."""

RESERVED: Final = ("sluice_", "sqlite_", "pg_", "information_schema", "mysql", "performance_schema", "sys.")


def claim_table(connection: Connection, name: str, *, flow: str, outside: bool) -> None:
    """Return if the flow may write to the table ``name``, its own from now on; else raise `TableRefused`.

    Call it in the transaction that creates or fills the table: the claim holds if that transaction does.

    ``outside`` says that the name comes from a file or a message. Such a name never leads to a table that another flow
    made or that nobody claimed; and where a flow claims by its own code a table that exists only because of such a
    name, that one is renamed out of its way. Names are compared as the most forgiving database does: letter case and
    compatibility forms of Unicode make no other table.
    """
    import sqlalchemy as sa

    _check_name(name)
    key, owners = table_key(name), _owners()
    owners.create(connection, checkfirst=True)
    owner = connection.execute(sa.select(owners.c.flow, owners.c.outside).where(owners.c.table_key == key)).first()
    row = {"flow": flow, "outside": outside, "claimed_at": datetime.now(UTC).isoformat()}
    if owner is None:
        there = _there(connection, key) if outside else None
        if there is not None:
            raise TableRefused(
                f"the table {there!r} is there already and belongs to no flow, so a file's or message's name does not "
                f"lead to it: name it in the rule or the deployment, and the flow {flow} takes it over"
            )
        connection.execute(sa.insert(owners).values(table_key=key, **row))
    elif owner.flow == flow:
        if owner.outside and not outside:
            connection.execute(sa.update(owners).where(owners.c.table_key == key).values(row))
    elif owner.outside and not outside:
        connection.execute(sa.update(owners).where(owners.c.table_key == key).values(row))
        _move_away(connection, key, {**row, "flow": owner.flow, "outside": True})
    else:
        raise TableRefused(f"the table {name!r} belongs to the flow {owner.flow}: the flow {flow} may not write to it")


def _check_name(name: str) -> None:
    if not name or not name.isprintable() or len(name.encode(errors="replace")) > LONGEST_NAME:
        raise TableRefused(f"{name[:80]!r} is no name for a table: at most {LONGEST_NAME} bytes of printable text")
    if table_key(name).startswith(RESERVED):
        raise TableRefused(
            f"the table {name!r} cannot be loaded into: names that begin so belong to the database or to Sluice"
        )


def table_key(name: str) -> str:
    """The name as the most forgiving database compares it."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).strip()


def _owners() -> Table:
    import sqlalchemy as sa

    return sa.Table(
        OWNERS,
        sa.MetaData(),
        sa.Column("table_key", sa.String(255), primary_key=True),
        sa.Column("flow", sa.String(255), nullable=False),
        sa.Column("outside", sa.Boolean, nullable=False),
        sa.Column("claimed_at", sa.String(40), nullable=False),
    )


def _there(connection: Connection, key: str) -> str | None:
    """The table or view that answers to the key, if there is one."""
    import sqlalchemy as sa

    found = sa.inspect(connection)
    return next((one for one in (*found.get_table_names(), *found.get_view_names()) if table_key(one) == key), None)


def _move_away(connection: Connection, key: str, row: dict[str, Any]) -> None:
    """Rename the table that only a name from outside had made."""
    import sqlalchemy as sa

    there = _there(connection, key)
    if there is None:
        return
    quoted = connection.dialect.identifier_preparer.quote
    number = 1
    while _there(
        connection, table_key(moved := f"from_file_{number}_{key}".encode()[:LONGEST_NAME].decode(errors="ignore"))
    ):
        number += 1
    connection.execute(sa.insert(_owners()).values(table_key=table_key(moved), **row))
    connection.exec_driver_sql(f"ALTER TABLE {quoted(there)} RENAME TO {quoted(moved)}")
