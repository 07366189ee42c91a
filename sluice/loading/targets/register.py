"""Which version of which file is in which table; kept in the database, committed with the rows it speaks of."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Final

import sqlalchemy as sa

from sluice.display import visible
from sluice.loading.errors import RefusedFile
from sluice.loading.targets.plan import Destination, FileVersion

LOADS: Final = sa.Table(
    "sluice_loads",
    sa.MetaData(),
    sa.Column("load_key", sa.String(64), primary_key=True),
    sa.Column("table_name", sa.Text, nullable=False),
    sa.Column("file", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("made_ns", sa.BigInteger),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("row_count", sa.BigInteger, nullable=False),
    sa.Column("loaded_at", sa.Text, nullable=False),
    mysql_charset="utf8mb4",
    mysql_collate="utf8mb4_bin",
    mariadb_charset="utf8mb4",
    mariadb_collate="utf8mb4_bin",
)


def load_key(to: Destination, file: FileVersion) -> str:
    """What tells a load from all others: the table, and the version and content of the file.

    A file that was made anew is another one, also with the same inode, size, time and content.
    """
    identity = json.dumps([to.schema, to.table, file.version, file.digest, file.made_ns]).encode()
    return hashlib.sha256(identity).hexdigest()


def is_entered(connection: sa.Connection, to: Destination, file: FileVersion) -> bool:
    """Whether this version of the file was loaded into the table."""
    found = sa.select(LOADS.c.load_key).where(LOADS.c.load_key == load_key(to, file))
    return connection.scalar(found) is not None


def enter(connection: sa.Connection, to: Destination, file: FileVersion) -> None:
    """This version of the file is in the table as soon as the transaction commits."""
    entry = {"load_key": load_key(to, file), "table_name": to.full_name, "file": visible(file.name)}
    times = {"version": file.version, "digest": file.digest, "loaded_at": datetime.now(UTC).isoformat()}
    connection.execute(sa.insert(LOADS), entry | times | {"made_ns": file.made_ns, "row_count": 0})


def counted(connection: sa.Connection, to: Destination, file: FileVersion, rows: int) -> None:
    """So many rows of the file are in the table."""
    entry = sa.update(LOADS).where(LOADS.c.load_key == load_key(to, file))
    connection.execute(entry.values(row_count=rows))


def check_not_grown(connection: sa.Connection, to: Destination, file: FileVersion) -> None:
    """Raise `RefusedFile` if the file was loaded when it was shorter: its first rows would be in the table twice."""
    if file.digest_of_first is None:
        return
    inode, size, _ = file.version.split("-", 2)
    same = sa.select(LOADS.c.version, LOADS.c.digest, LOADS.c.row_count, LOADS.c.loaded_at).where(
        LOADS.c.table_name == to.full_name,
        LOADS.c.version.like(f"{inode}-%"),
        LOADS.c.made_ns.is_not_distinct_from(file.made_ns),
        LOADS.c.row_count > 0,
    )
    for version, digest, rows, loaded_at in connection.execute(same).all():
        before = int(version.split("-")[1])
        if before < int(size) and file.digest_of_first(before) == digest:
            raise RefusedFile(
                f"its first {before} bytes, {rows} rows, went into the table {to.full_name} at {loaded_at}, and it was "
                "written on since then: those rows would be there twice. Drop what is new as a file of its own, and "
                "let a file be complete before it is dropped; a contract with `mode: replace` or `mode: upsert` takes "
                "files that grow"
            )


def forget(connection: sa.Connection, to: Destination) -> None:
    """Nothing is in the table: it was dropped."""
    connection.execute(sa.delete(LOADS).where(LOADS.c.table_name == to.full_name))
