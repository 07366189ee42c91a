"""The database of a new Prefect server on SQLite, made in one step from a recorded result of its first start.

More than a hundred migrations take half of a server's first start, and the registration of block types a fifth of the
rest. `tools/prefect_schema.py` records the result in ``prefect_schemas/``, for the versions of Prefect that are tested;
other versions migrate and register themselves.
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
    """The steps that Prefect can skip when it starts on a database."""

    migrated: bool = False
    """Whether it has the schema of the installed Prefect."""
    registered: bool = False
    """Whether it has the block types of the installed Prefect."""


def prepare(database: Path) -> PreparedDatabase:
    """Create ``database`` if it is missing; return which steps the installed Prefect can skip.

    If that is unknown, Prefect must check itself.
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
    # Other installed libraries have block types, too, which Prefect registers with its own.
    others = {one.name for one in entry_points(group="prefect.collections")} - {_DEPENDENCY}
    registered = migrated and mark == _mark(blocks) and not others
    return PreparedDatabase(migrated, registered)


def blocks_file() -> Path:
    """Return the recorded block types of the installed Prefect, if there are any."""
    return SCHEMAS / f"blocks-{version('prefect')}.sql.gz"


def _mark(blocks: Path) -> int:
    """Return the mark of a database that has these."""
    return zlib.crc32(blocks.name.encode()) >> 1


def migrations_digest() -> str:
    """Return the digest of Prefect's migration files for SQLite."""
    found = importlib.util.find_spec("prefect")
    folder = Path(next(iter(found.submodule_search_locations or ())) if found else "")
    digest = hashlib.sha256()
    for file in sorted((folder / "server/database/_migrations/versions/sqlite").glob("*.py")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _asked(database: Path) -> tuple[str | None, int]:
    """Return the database's revision, if it has one, and its mark."""
    try:
        with closing(sqlite3.connect(database)) as connection:
            rows = connection.execute("SELECT version_num FROM alembic_version").fetchall()
            mark = connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.Error:
        return None, 0
    return (str(rows[0][0]) if len(rows) == 1 else None), int(mark[0])
