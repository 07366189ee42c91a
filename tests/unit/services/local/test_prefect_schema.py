"""A new database is what Prefect's own migrations would have made of it, and no guess is made of any other."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from services.local import prefect_schema
from services.local.prefect_schema import SCHEMAS, migrations_digest, prepare


def told(database: Path, question: str) -> list[tuple]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(question).fetchall()


def test_the_schema_that_is_kept_is_what_the_migrations_of_the_installed_prefect_lead_to(checkout: Path) -> None:
    """When Prefect is changed: `python tools/prefect_schema.py`."""
    code = "from tools.prefect_schema import migrated_schema; print(migrated_schema(), end='')"
    made = subprocess.run([sys.executable, "-c", code], cwd=checkout, stdout=subprocess.PIPE, text=True, check=True)
    assert lines((SCHEMAS / f"{migrations_digest()}.sql").read_text(encoding="utf-8")) == lines(made.stdout)


def lines(schema: str) -> list[str]:
    """In order: in which order the migrations write the constraints of a table differs from run to run."""
    return sorted(line.strip().rstrip(",") for line in schema.splitlines())


def test_a_new_database_is_made_whole_and_a_later_start_finds_it_as_it_should_be(tmp_path: Path) -> None:
    database = tmp_path / "prefect.db"
    assert prepare(database)
    assert told(database, "SELECT count(*) FROM flow_run") == [(0,)]
    assert prepare(database)
    assert list(tmp_path.iterdir()) == [database]


@pytest.mark.parametrize(
    "change",
    ["UPDATE alembic_version SET version_num = 'abc'", "DELETE FROM alembic_version", "DROP TABLE alembic_version"],
)
def test_a_database_of_another_version_is_left_to_prefect(tmp_path: Path, change: str) -> None:
    database = tmp_path / "prefect.db"
    assert prepare(database)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(change)
    assert not prepare(database)


def test_with_migrations_that_are_not_known_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefect_schema, "migrations_digest", lambda: "0123456789abcdef")
    assert not prepare(tmp_path / "prefect.db")
    assert list(tmp_path.iterdir()) == []
