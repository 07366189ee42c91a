"""Records which version of which file is in which table, in the same database and transaction as the rows."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Final

import sqlalchemy as sa

from sluice.display import visible
from sluice.loading.errors import RefusedFile, TargetFailed
from sluice.loading.targets.plan import Destination, FileVersion, LoadQuality, PastLoad

LOADS: Final = sa.Table(
    "sluice_loads",
    sa.MetaData(),
    sa.Column("load_key", sa.String(64), primary_key=True),
    sa.Column("table_name", sa.String(130), nullable=False),
    sa.Column("file", sa.Text, nullable=False),
    sa.Column("inode", sa.String(20), nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("made_ns", sa.BigInteger),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("row_count", sa.BigInteger, nullable=False),
    sa.Column("bad_count", sa.BigInteger, nullable=False),
    sa.Column("empty_shares", sa.Text, nullable=False),
    sa.Column("loaded_at", sa.String(40), nullable=False),
    sa.Index("sluice_loads_inode", "inode"),
    sa.Index("sluice_loads_table", "table_name", "loaded_at"),
    mysql_charset="utf8mb4",
    mysql_collate="utf8mb4_bin",
    mariadb_charset="utf8mb4",
    mariadb_collate="utf8mb4_bin",
)


_BEFORE: Final = {"inode": "''", "empty_shares": "'{}'"}
"""Values of columns that did not exist at the time of a load; the others have 0."""


def load_key(to: Destination, file: FileVersion) -> str:
    """Return the key of a load: the table, and the version and content of the file.

    A file that was created anew is another one, even with the same inode, size, time and content.
    """
    identity = json.dumps([to.schema, to.table, file.version, file.digest, file.made_ns]).encode()
    return hashlib.sha256(identity).hexdigest()


def is_entered(connection: sa.Connection, to: Destination, file: FileVersion) -> bool:
    """Return whether this version of the file was loaded into the table."""
    found = sa.select(LOADS).where(LOADS.c.load_key == load_key(to, file))
    return connection.execute(found).first() is not None


def check_form(connection: sa.Connection) -> None:
    """Raise `TargetFailed` if the table of loads was created by an older version of Sluice, with fewer columns."""
    with connection.execute(sa.select(sa.text("*")).select_from(LOADS).limit(0)) as found:
        there = set(found.keys())
    lacking = [column for column in LOADS.columns if column.name not in there]
    if lacking:
        types = {column.name: column.type.compile(connection.dialect) for column in lacking}
        added = "; ".join(
            f"ALTER TABLE {LOADS.name} ADD COLUMN {column.name} {types[column.name]}"
            + ("" if column.nullable else f" NOT NULL DEFAULT {_BEFORE.get(column.name, 0)}")
            for column in lacking
        )
        raise TargetFailed(
            f"the table {LOADS.name} was made by an older version of Sluice and lacks {list(types)}: add them ({added}"
            "), or drop it if no file that is in a table can be dropped again",
            transient=False,
        )


def enter(connection: sa.Connection, to: Destination, file: FileVersion) -> None:
    """Record that this version of the file is in the table, once the transaction commits."""
    entry = {"load_key": load_key(to, file), "table_name": to.full_name, "file": visible(file.name)}
    what = {"inode": _inode(file), "version": file.version, "made_ns": file.made_ns, "digest": file.digest}
    counts = {"row_count": 0, "bad_count": 0, "empty_shares": "{}", "loaded_at": datetime.now(UTC).isoformat()}
    connection.execute(sa.insert(LOADS), entry | what | counts)


def counted(connection: sa.Connection, to: Destination, file: FileVersion, quality: LoadQuality) -> None:
    """Record what became of the rows of the file."""
    entry = sa.update(LOADS).where(LOADS.c.load_key == load_key(to, file))
    shares = json.dumps(quality.empty_shares, ensure_ascii=False)
    connection.execute(entry.values(row_count=quality.rows, bad_count=quality.bad, empty_shares=shares))


def history(connection: sa.Connection, table: str, count: int) -> list[PastLoad]:
    """Return the last ``count`` loads into the table, the oldest first."""
    columns = (LOADS.c.file, LOADS.c.loaded_at, LOADS.c.row_count, LOADS.c.bad_count, LOADS.c.empty_shares)
    newest = sa.select(*columns).where(LOADS.c.table_name == table).order_by(LOADS.c.loaded_at.desc()).limit(count)
    return [
        PastLoad(file, loaded_at, LoadQuality(rows, bad, json.loads(shares)))
        for file, loaded_at, rows, bad, shares in reversed(connection.execute(newest).all())
    ]


def check_not_grown(connection: sa.Connection, to: Destination, file: FileVersion) -> None:
    """Raise `RefusedFile` if the file was loaded when it was shorter: its first rows would be in the table twice."""
    same = sa.select(LOADS.c.version, LOADS.c.digest, LOADS.c.row_count, LOADS.c.loaded_at).where(
        LOADS.c.table_name == to.full_name,
        LOADS.c.inode == _inode(file),
        LOADS.c.made_ns.is_not_distinct_from(file.made_ns),
        LOADS.c.row_count > 0,
    )
    for before in connection.execute(same).all():
        check_not_longer(to, file, *before)


def check_not_longer(  # noqa: PLR0917 - one entry
    to: Destination, file: FileVersion, version: str, digest: str, rows: int, loaded_at: str
) -> None:
    """Raise `RefusedFile` if the file begins with that version of it, which was loaded before."""
    before, size = (int(one.split("-")[1]) for one in (version, file.version))
    if file.digest_of_first is not None and before < size and file.digest_of_first(before) == digest:
        raise RefusedFile(
            f"its first {before} bytes, {rows} rows, went into the table {to.full_name} at {loaded_at}, and it was "
            "written on since then: those rows would be there twice. Drop what is new as a file of its own, and "
            "let a file be complete before it is dropped; a contract with `mode: replace` or `mode: upsert` takes "
            "files that grow"
        )


def _inode(file: FileVersion) -> str:
    return file.version.partition("-")[0]


def forget(connection: sa.Connection, to: Destination) -> None:
    """Delete the records of the table's loads, because the table was dropped."""
    connection.execute(sa.delete(LOADS).where(LOADS.c.table_name == to.full_name))
