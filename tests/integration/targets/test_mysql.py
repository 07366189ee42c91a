"""Rows into MariaDB, which is read with PyMySQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pymysql
import pytest
import sqlalchemy as sa

from sluice.loading.errors import RefusedFile
from tests.support.databases import mariadb
from tests.support.target_suite import Query, TargetSuite, put, to


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with mariadb() as started:
        yield started


@pytest.fixture(scope="module")
def query(url: str) -> Query:
    parsed = sa.make_url(url)

    def ask(sql: str) -> list[tuple[Any, ...]]:
        where = {"host": parsed.host, "port": parsed.port, "user": "root", "database": parsed.database}
        with closing(pymysql.connect(**where, autocommit=True)) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    return ask


class TestMariadb(TargetSuite):
    """CREATE TABLE cannot be rolled back there."""


def test_a_failed_first_load_leaves_no_table(url: str, query: Query) -> None:
    with pytest.raises(RefusedFile, match="NUL"):
        put(url, to("failed"), {"a": ["not\0fine"]})
    assert query("SHOW TABLES LIKE 'failed'") == []


def test_values_that_the_server_would_cut_or_replace_are_refused(url: str, query: Query) -> None:
    query("SET GLOBAL sql_mode = ''")
    query("CREATE TABLE narrow (id INT AUTO_INCREMENT PRIMARY KEY, s VARCHAR(3), l VARCHAR(9) CHARSET latin1)")
    for number, row in enumerate(({"s": ["long"]}, {"l": ["😀"]}), start=1):
        with pytest.raises(RefusedFile, match="lines 4 to 4: the database refuses a row: "):
            put(url, to("narrow"), row, number, lines=[4])
    put(url, to("narrow"), {"id": [0], "s": ["abc"]}, 3)
    assert query("SELECT id, s FROM narrow") == [(0, "abc")]


def test_texts_that_differ_in_case_accent_or_spaces_at_the_end_are_different_keys(url: str, query: Query) -> None:
    where = to("exact", mode="upsert", key=("k",))
    put(url, where, {"k": ["a", "A", "á", "a "], "n": [1, 2, 3, 4]})
    put(url, where, {"k": ["A"], "n": [5]}, 2)
    assert query("SELECT n FROM exact ORDER BY n") == [(1,), (3,), (4,), (5,)]


def test_names_that_differ_in_an_accent_are_different_tables(url: str, query: Query) -> None:
    put(url, to("cafe", outside=True, spelling="cafe"), {"n": [1]})
    put(url, to("café", outside=True, spelling="café"), {"n": [2]})
    assert query("SELECT n FROM `café`") == [(2,)]


def test_numbers_that_are_none_are_null_and_said_and_infinite_ones_refused(url: str, query: Query) -> None:
    assert put(url, to("odd"), {"v": [float("nan")]}) == ["column 'v': 1 NaN is NULL in the table"]
    with pytest.raises(RefusedFile, match=r"line 8: .*cannot hold an infinite number"):
        put(url, to("odd"), {"v": [1.0, float("inf")]}, 2, lines=[7, 8])


def test_more_digits_than_a_short_number_keeps_are_refused(url: str, query: Query) -> None:
    query("CREATE TABLE short (v FLOAT)")
    put(url, to("short"), {"v": [0.1, -1234.5]})
    with pytest.raises(RefusedFile, match=r"line 3, column 'v': 123456\.789 has more digits than its type FLOAT"):
        put(url, to("short"), {"v": [0.1, 123456.789]}, 2, lines=[2, 3])


def test_schema_and_table_by_name(url: str, query: Query) -> None:
    query("CREATE DATABASE sales")
    put(url, to("t", schema="sales"), {"id": [1]})
    put(url, to("t", schema="sales", mode="upsert", key=("id",), new_columns="add"), {"id": [1], "n": [2]}, 2)
    assert query("SELECT id, n FROM sales.t") == [(1, 2)]
