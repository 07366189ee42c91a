"""The database of a new Prefect server on SQLite, made in one step from what its migrations are known to lead to.

More than a hundred migrations take half of a server's first start. `tools/prefect_schema.py` writes down what they lead
to, for the versions of Prefect that are tested, in ``prefect_schemas/``; with another version Prefect migrates.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

SCHEMAS: Final = Path(__file__).parent / "prefect_schemas"


def prepare(database: Path) -> bool:
    """Make ``database`` if it is not there; answers whether it is as the installed Prefect wants it.

    False where that is not known: Prefect must look, and migrate, itself.
    """
    schema = SCHEMAS / f"{migrations_digest()}.sql"
    if not schema.exists():
        return False
    text = schema.read_text(encoding="utf-8")
    if not database.exists():
        part = database.with_suffix(f".{os.getpid()}")
        part.unlink(missing_ok=True)
        with closing(sqlite3.connect(part)) as connection:
            connection.executescript(text)
        part.rename(database)
    return bool(revision := _revision(database)) and f"VALUES('{revision}')" in text


def migrations_digest() -> str:
    """Of the files of Prefect's migrations for SQLite."""
    found = importlib.util.find_spec("prefect")
    folder = Path(next(iter(found.submodule_search_locations or ())) if found else "")
    digest = hashlib.sha256()
    for file in sorted((folder / "server/database/_migrations/versions/sqlite").glob("*.py")):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _revision(database: Path) -> str | None:
    try:
        with closing(sqlite3.connect(database)) as connection:
            rows = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    except sqlite3.Error:
        return None
    return str(rows[0][0]) if len(rows) == 1 else None
