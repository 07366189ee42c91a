"""Which version of which file is in which table; kept in the database, committed with the rows it speaks of."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Final

import sqlalchemy as sa

from sluice.display import visible
from sluice.loading.targets.plan import Destination, FileVersion

LOADS: Final = sa.Table(
    "sluice_loads",
    sa.MetaData(),
    sa.Column("load_key", sa.String(64), primary_key=True),
    sa.Column("table_name", sa.Text, nullable=False),
    sa.Column("file", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("loaded_at", sa.Text, nullable=False),
    mysql_charset="utf8mb4",
    mysql_collate="utf8mb4_bin",
    mariadb_charset="utf8mb4",
    mariadb_collate="utf8mb4_bin",
)


def load_key(to: Destination, file: FileVersion) -> str:
    """What tells a load from all others: the table, and the version and content of the file."""
    identity = json.dumps([to.schema, to.table, file.version, file.digest]).encode()
    return hashlib.sha256(identity).hexdigest()


def is_entered(connection: sa.Connection, to: Destination, file: FileVersion) -> bool:
    """Whether this version of the file was loaded into the table."""
    found = sa.select(LOADS.c.load_key).where(LOADS.c.load_key == load_key(to, file))
    return connection.scalar(found) is not None


def enter(connection: sa.Connection, to: Destination, file: FileVersion) -> None:
    """This version of the file is in the table as soon as the transaction commits."""
    entry = {"load_key": load_key(to, file), "table_name": to.full_name, "file": visible(file.name)}
    times = {"version": file.version, "loaded_at": datetime.now(UTC).isoformat()}
    connection.execute(sa.insert(LOADS), entry | times)


def forget(connection: sa.Connection, to: Destination) -> None:
    """Nothing is in the table: it was dropped."""
    connection.execute(sa.delete(LOADS).where(LOADS.c.table_name == to.full_name))
