"""Rows into DuckDB."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

from sluice.loading.errors import RefusedFile
from sluice.loading.targets import open_target
from tests.support.target_suite import PEOPLE, Query, TargetSuite, put, to


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"duckdb:///{tmp_path / 'home' / 'data.duckdb'}"


@pytest.fixture
def query(url: str) -> Query:
    def ask(sql: str) -> list[tuple[Any, ...]]:
        Path(url.removeprefix("duckdb:///")).parent.mkdir(exist_ok=True)
        with closing(duckdb.connect(url.removeprefix("duckdb:///"))) as connection:
            return connection.execute(sql).fetchall()

    return ask


class TestDuckdb(TargetSuite):
    """The file is read with DuckDB's own driver."""


def test_text_is_converted_to_types_that_only_the_database_knows(url: str, query: Query) -> None:
    query("CREATE TABLE own (big HUGEINT, id UUID, tags VARCHAR[])")
    put(url, to("own"), {"big": ["170141183460469231731687303715884105727"], "tags": ["[a, b]"]})
    assert query("SELECT big, tags FROM own") == [(170141183460469231731687303715884105727, ["a", "b"])]
    with pytest.raises(RefusedFile, match=r"lines 7 to 7: the database refuses a row: .*UUID"):
        put(url, to("own"), {"id": ["nonsense"]}, 2, lines=[7])


def test_a_load_waits_for_a_process_that_has_the_file_open(url: str, query: Query) -> None:
    query("CREATE TABLE t (id BIGINT, name VARCHAR)")
    code = "import duckdb, sys; held = duckdb.connect(sys.argv[1]); print(flush=True); sys.stdin.read(1)"
    file = url.removeprefix("duckdb:///")
    with subprocess.Popen([sys.executable, "-c", code, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        assert holder.stdin
        holder.stdout.readline()
        with pytest.raises(duckdb.IOException, match="lock"):
            duckdb.connect(file)
        holder.stdin.close()
        put(url, to("t"), PEOPLE)
    assert query("SELECT count(*) FROM t") == [(2,)]


def test_a_database_in_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="in memory"):
        open_target("duckdb://")
