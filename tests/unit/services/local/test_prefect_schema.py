"""A new database is what Prefect's own migrations would have made of it, and no guess is made of any other."""

from __future__ import annotations

import gzip
import json
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from services.local import prefect_schema
from services.local.prefect_schema import SCHEMAS, PreparedDatabase, blocks_file, migrations_digest, prepare


def told(database: Path, question: str) -> list[tuple]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(question).fetchall()


def test_the_schema_that_is_kept_is_what_the_migrations_of_the_installed_prefect_lead_to(checkout: Path) -> None:
    """When Prefect is changed: `python tools/prefect_schema.py`."""
    code = (
        "import json; from tools.prefect_schema import migrated_schema, registered_blocks;"
        "print(json.dumps([migrated_schema(), registered_blocks()]))"
    )
    made = subprocess.run([sys.executable, "-c", code], cwd=checkout, stdout=subprocess.PIPE, text=True, check=True)
    schema, blocks = json.loads(made.stdout)
    assert lines((SCHEMAS / f"{migrations_digest()}.sql").read_text(encoding="utf-8")) == lines(schema)
    assert lines(without_ids(gzip.decompress(blocks_file().read_bytes()).decode())) == lines(without_ids(blocks))


def without_ids(rows: str) -> str:
    """Ids and moments are others each time, and capabilities are a set."""
    rows = re.sub(r'\["[a-z-]+"(, "[a-z-]+")*\]', lambda found: str(sorted(json.loads(found[0]))), rows)
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "?", rows)


def lines(schema: str) -> list[str]:
    """In order: in which order the migrations write the constraints of a table differs from run to run."""
    return sorted(line.strip().rstrip(",") for line in schema.splitlines())


def test_a_new_database_is_made_whole_and_a_later_start_finds_it_as_it_should_be(tmp_path: Path) -> None:
    database = tmp_path / "prefect.db"
    assert prepare(database) == PreparedDatabase(migrated=True, registered=True)
    assert told(database, "SELECT count(*) FROM flow_run") == [(0,)]
    assert {("slack-webhook",), ("secret",)} <= set(told(database, "SELECT slug FROM block_type"))
    assert prepare(database) == PreparedDatabase(migrated=True, registered=True)
    assert list(tmp_path.iterdir()) == [database]


@pytest.mark.parametrize(
    "change",
    ["UPDATE alembic_version SET version_num = 'abc'", "DELETE FROM alembic_version", "DROP TABLE alembic_version"],
)
def test_a_database_of_another_version_is_left_to_prefect(tmp_path: Path, change: str) -> None:
    database = tmp_path / "prefect.db"
    prepare(database)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(change)
    assert prepare(database) == PreparedDatabase()


def test_a_database_without_the_types_of_blocks_is_left_to_prefect_to_register_them(tmp_path: Path) -> None:
    database = tmp_path / "prefect.db"
    prepare(database)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("PRAGMA user_version = 0")
    assert prepare(database) == PreparedDatabase(migrated=True)


def test_types_of_blocks_that_are_installed_beside_prefect_are_for_prefect_to_register(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefect_schema, "entry_points", lambda group: [EntryPoint("prefect_other", "other", group)])
    assert prepare(tmp_path / "prefect.db") == PreparedDatabase(migrated=True)


def test_with_migrations_that_are_not_known_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefect_schema, "migrations_digest", lambda: "0123456789abcdef")
    assert prepare(tmp_path / "prefect.db") == PreparedDatabase()
    assert list(tmp_path.iterdir()) == []
