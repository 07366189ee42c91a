"""The database of a new Prefect server on SQLite, made in one step from what its first start is known to lead to.

More than a hundred migrations take half of a server's first start, and the types of blocks that it registers a fifth of
the rest. `tools/prefect_schema.py` writes down what they lead to, for the versions of Prefect that are tested, in
``prefect_schemas/``; with another version Prefect migrates and registers.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import os
import sqlite3
import zlib
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import Final

SCHEMAS: Final = Path(__file__).parent / "prefect_schemas"

_DEPENDENCY: Final = "prefect_redis"
"""Installed with Sluice, for the messages of several Prefect servers; its type of block is registered by `prefect block
register` where somebody wants it."""


@dataclass(frozen=True, slots=True)
class PreparedDatabase:
    """What Prefect need not do when it starts on a database."""

    migrated: bool = False
    """It has the schema that the installed Prefect wants."""
    registered: bool = False
    """It has the types of blocks that the installed Prefect brings."""


def prepare(database: Path) -> PreparedDatabase:
    """Make ``database`` if it is not there; answers in what it is as the installed Prefect wants it.

    Where that is not known, Prefect must look itself.
    """
    schema = SCHEMAS / f"{migrations_digest()}.sql"
    if not schema.exists():
        return PreparedDatabase()
    text = schema.read_text(encoding="utf-8")
    blocks = blocks_file()
    if not database.exists():
        part = database.with_suffix(f".{os.getpid()}")
        part.unlink(missing_ok=True)
        with closing(sqlite3.connect(part)) as connection:
            connection.executescript(text)
            if blocks.exists():
                rows = gzip.decompress(blocks.read_bytes()).decode()
                connection.executescript(f"BEGIN; {rows} PRAGMA user_version = {_mark(blocks)}; COMMIT;")
        part.rename(database)
    revision, mark = _asked(database)
    migrated = bool(revision) and f"VALUES('{revision}')" in text
    # What else is installed brings types of its own, which Prefect registers with its others.
    others = {one.name for one in entry_points(group="prefect.collections")} - {_DEPENDENCY}
    registered = migrated and mark == _mark(blocks) and not others
    return PreparedDatabase(migrated, registered)


def blocks_file() -> Path:
    """Where the types of blocks of the installed Prefect are kept, if they are."""
    return SCHEMAS / f"blocks-{version('prefect')}.sql.gz"


def _mark(blocks: Path) -> int:
    """What a database is marked with that has these."""
    return zlib.crc32(blocks.name.encode()) >> 1


def migrations_digest() -> str:
    """Of the files of Prefect's migrations for SQLite."""
    found = importlib.util.find_spec("prefect")
    folder = Path(next(iter(found.submodule_search_locations or ())) if found else "")
    digest = hashlib.sha256()
    for file in sorted((folder / "server/database/_migrations/versions/sqlite").glob("*.py")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _asked(database: Path) -> tuple[str | None, int]:
    """The database's revision, if it has one, and its mark."""
    try:
        with closing(sqlite3.connect(database)) as connection:
            rows = connection.execute("SELECT version_num FROM alembic_version").fetchall()
            mark = connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error:
        return None, 0
    return (str(rows[0][0]) if len(rows) == 1 else None), int(mark[0])
