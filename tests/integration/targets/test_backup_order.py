"""The order in which a backup copies its stores: each is copied after those that refer to what is in it."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from config.settings import RedisSettings, load_settings
from services.home.access import find_access
from services.local.backup import making
from services.store.connection import connect_sync
from tests.support.databases import postgresql
from tests.support.valkeys import own_valkey


@dataclass(frozen=True)
class Database:
    """Prefect's, with the table that this test needs."""

    url: str
    insert: Callable[[str], None]
    in_backup: Callable[[Path], str]


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        file = tmp_path / "prefect.db"

        def insert(step: str) -> None:
            with closing(sqlite3.connect(file)) as connection, connection:
                connection.execute("CREATE TABLE IF NOT EXISTS states (step TEXT)")
                connection.execute("INSERT INTO states VALUES (?)", (step,))

        def in_backup(backup: Path) -> str:
            with closing(sqlite3.connect(backup / making.SQLITE)) as connection:
                return str(connection.execute("SELECT step FROM states").fetchall())

        yield Database(f"sqlite+aiosqlite:///{file}", insert, in_backup)
        return
    with postgresql() as url:
        plain = url.replace("+psycopg", "")

        def insert(step: str) -> None:
            with psycopg.connect(plain) as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS states (step TEXT)")
                connection.execute("INSERT INTO states VALUES (%s)", (step,))

        def in_backup(backup: Path) -> str:
            tool = shutil.which("pg_restore") or "pg_restore"
            command = [tool, "--file=-", str(backup / making.POSTGRESQL)]
            return subprocess.run(command, check=True, capture_output=True, text=True).stdout

        yield Database(url.replace("+psycopg", "+asyncpg"), insert, in_backup)


def test_nothing_in_a_backup_refers_to_what_is_not_in_it(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step happens before each copy: a result's file is written, then its state in Prefect, then a key in Redis."""
    home = tmp_path / ".sluice"
    results = home / "prefect" / "storage"
    results.mkdir(parents=True)
    with own_valkey(tmp_path / "valkey") as valkey, connect_sync(valkey.url, RedisSettings()) as redis:
        monkeypatch.setenv("SLUICE_HOME", str(home))
        monkeypatch.setenv("SLUICE_REDIS_URL", valkey.url)
        monkeypatch.setenv(making.DATABASE_VARIABLE, database.url)
        steps: list[str] = []

        def after_a_step(copy: Callable[..., None]) -> Callable[..., None]:
            def copying(*arguments: Any) -> None:
                step = f"step-{len(steps)}"
                steps.append(step)
                (results / step).touch()
                database.insert(step)
                redis.set(f"test:{step}", "")
                copy(*arguments)

            return copying

        for name in ("copy_to", "copy_sqlite", "dump_postgresql", "_copy_home"):
            monkeypatch.setattr(making, name, after_a_step(getattr(making, name)))
        settings = load_settings()
        backup = tmp_path / "backup"
        making.back_up(settings, find_access(settings), backup, say=pytest.fail)

    rdb, states = (backup / making.REDIS).read_bytes(), database.in_backup(backup)
    in_redis = [step for step in steps if step.encode() in rdb]
    in_prefect = [step for step in steps if step in states]
    in_home = [step for step in steps if (backup / making.HOME / "prefect" / "storage" / step).exists()]
    assert (in_redis, in_prefect, in_home) == (steps[:1], steps[:2], steps[:3])
