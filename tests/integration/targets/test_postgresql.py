"""Rows into PostgreSQL, which is read with psycopg."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

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
            found = connection.execute(sql)  # type: ignore[call-overload]
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
