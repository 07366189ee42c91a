"""Rows into PostgreSQL, which is read with psycopg."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from events.errors import ConfigError, TransientError
from services.local.backup.making import dump_postgresql
from sluice.loading.errors import RefusedFile, TargetFailed
from tests.support.databases import postgresql
from tests.support.target_suite import PEOPLE, Query, TargetSuite, put, to


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with postgresql() as started:
        yield started


@pytest.fixture(scope="module")
def query(url: str) -> Query:
    def ask(sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(url.replace("+psycopg", "")) as connection:
            found = connection.execute(sql)
            return found.fetchall() if found.description else []

    return ask


class TestPostgresql(TargetSuite):
    """By COPY."""


def test_the_row_that_copy_refuses_is_named_among_values_with_line_breaks(url: str, query: Query) -> None:
    query("CREATE TABLE checked (n BIGINT CHECK (n <> 3), note TEXT)")
    rows = {"n": [1, 2, 3, 4], "note": ["a\nb\nc", "\n", "x", None]}
    with pytest.raises(RefusedFile, match=r"^line 13: the database refuses a row: .*checked_n_check"):
        put(url, to("checked"), rows, lines=[2, 8, 13, 14])
    assert query("SELECT count(*) FROM checked") == [(0,)]


def test_text_is_converted_to_types_that_only_the_database_knows(url: str, query: Query) -> None:
    query("CREATE TABLE own (price NUMERIC, doc JSONB, id UUID, tags TEXT[], small SMALLINT)")
    row = {
        "price": ["1.10"],
        "doc": ['{"a": 1}'],
        "id": ["6f1f8a52-1c2e-4c44-9d53-9f5e9a4b2f10"],
        "tags": ['{"a,b",c}'],
    }
    put(url, to("own"), row)
    assert query("SELECT price::text, doc->>'a', tags[1] FROM own") == [("1.10", "1", "a,b")]
    with pytest.raises(RefusedFile, match="line 7: the database refuses a row: invalid input syntax for type uuid"):
        put(url, to("own"), {"id": ["nonsense"]}, 2, lines=[7])


def test_schema_and_table_by_name(url: str, query: Query) -> None:
    query('CREATE SCHEMA "Sales"')
    put(url, to("t", schema="Sales"), PEOPLE)
    put(url, to("t", schema="public"), {"other": ["x"]})
    assert query('SELECT count(*) FROM "Sales".t') == [(2,)]
    put(
        url,
        to("t", schema="Sales", mode="upsert", key=("id",), wider_types="widen", new_columns="add"),
        {"id": ["x"], "n": [1]},
        2,
    )
    assert query('SELECT id, n FROM "Sales".t ORDER BY id DESC LIMIT 1') == [("x", 1)]


def test_a_server_that_is_not_there_is_named_without_the_password() -> None:
    with pytest.raises(TargetFailed, match="connection") as failed:
        put("postgresql://me:hush@127.0.0.1:1/x", to("t"), PEOPLE)
    assert failed.value.transient
    assert "hush" not in str(failed.value)


def test_a_backup_of_prefects_database_is_a_dump_that_can_be_restored(
    url: str, query: Query, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("pg_dump") is None or shutil.which("pg_restore") is None:
        pytest.skip("PostgreSQL's client is not installed")
    query("CREATE TABLE backed_up (n BIGINT)")
    query("INSERT INTO backed_up VALUES (41), (42)")
    as_prefect_says = url.replace("+psycopg", "+asyncpg")
    dump_postgresql(as_prefect_says, tmp_path / "dump")
    assert (tmp_path / "dump").stat().st_mode & 0o077 == 0
    query("DROP TABLE backed_up")
    target = url.replace("+psycopg", "")
    subprocess.run(["pg_restore", "--no-owner", "-t", "backed_up", "-d", target, str(tmp_path / "dump")], check=True)
    assert query("SELECT n FROM backed_up ORDER BY n") == [(41,), (42,)]
    with pytest.raises(TransientError, match="pg_dump ended with code 1"):
        dump_postgresql(as_prefect_says.replace("/postgres", "/nothing"), tmp_path / "other")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="there is no pg_dump here"):
        dump_postgresql(as_prefect_says, tmp_path / "third")
