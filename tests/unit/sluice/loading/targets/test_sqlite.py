"""Rows into SQLite."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
import sqlalchemy as sa

from sluice.loading.errors import RefusedFile
from sluice.loading.targets import FileVersion, open_target
from tests.support.target_suite import Query, Rows, TargetSuite, put, to


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'home' / 'data.db'}"


@pytest.fixture
def query(url: str) -> Query:
    def ask(sql: str) -> Rows:
        Path(url.removeprefix("sqlite:///")).parent.mkdir(exist_ok=True)
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
            return connection.execute(sql).fetchall()

    return ask


class TestSqlite(TargetSuite):
    """The file is read with Python's own driver."""


@pytest.mark.parametrize(
    "value", ["00501", "-0", "+1", "1e5", ".5", "5.", " 7", "1.50", "12345678901234567.89", "9223372036854775808"]
)
def test_text_that_sqlite_would_make_another_number_of_is_refused_with_its_place(
    url: str, query: Query, value: str
) -> None:
    query("CREATE TABLE codes (code STRING)")
    with pytest.raises(RefusedFile, match=r"line 5: .*the column 'code' would make another number of .*TEXT"):
        put(url, to("codes"), {"code": ["abc", value]}, lines=[4, 5])
    assert query("SELECT count(*) FROM codes") == [(0,)]


def test_text_that_comes_back_goes_into_a_column_of_numeric_affinity(url: str, query: Query) -> None:
    values = ["501", "-17", "99.95", "9223372036854775807", "abc", "2026-03-01", "0x10", "", "1234567890.12345"]
    query("CREATE TABLE codes (n INTEGER, code STRING, amount DECIMAL(18, 2))")
    put(url, to("codes"), {"n": list(range(len(values))), "code": values})
    put(url, to("codes"), {"amount": ["1.50", "0.00", "1234567890.123456"]}, 2)
    assert query("SELECT CAST(code AS TEXT) FROM codes WHERE n IS NOT NULL ORDER BY n") == [(one,) for one in values]
    assert query("SELECT amount FROM codes WHERE n IS NULL") == [(1.5,), (0,), (1234567890.123456,)]


def test_a_decimal_that_sqlite_would_round_is_refused(url: str, query: Query) -> None:
    query("CREATE TABLE sums (amount DECIMAL(18, 2))")
    with pytest.raises(RefusedFile, match=r"12345678901234567\.89"):
        put(url, to("sums"), {"amount": ["12345678901234567.89"]})


def test_numbers_that_are_none_are_null_and_said(url: str, query: Query) -> None:
    notes = put(url, to("odd"), {"v": [1.5, float("nan"), float("inf")]})
    assert query("SELECT v FROM odd") == [(1.5,), (None,), (float("inf"),)]
    assert notes == ["column 'v': 1 NaN is NULL in the table"]


def test_a_database_in_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="in memory"):
        open_target("sqlite://")


def test_a_url_that_cannot_be_used_is_refused_without_its_password() -> None:
    for url in ("nonsense", "nosuch://me:hush@localhost/x"):
        with pytest.raises(ValueError, match="cannot be used") as error:
            open_target(url)
        assert "hush" not in str(error.value)


def test_a_load_opens_one_connection_and_leaves_none_open(url: str, query: Query) -> None:
    made: list[object] = []

    def count(connection: object, _record: object) -> None:
        made.append(connection)

    sa.event.listen(sa.Pool, "connect", count)
    try:
        with open_target(url) as target:
            plan = target.plan(to("t"), pa.schema([("n", pa.int64())]))
            assert not target.is_loaded(to("t"), FileVersion("x.csv", "1-2-3", "0"))
            with target.load(to("t"), plan, FileVersion("x.csv", "1-2-3", "0")) as load:
                load.write(pa.record_batch({"n": [1]}))
        is_open = url.removeprefix("sqlite:///") in {one.path for one in psutil.Process().open_files()}
    finally:
        sa.event.remove(sa.Pool, "connect", count)
    assert not is_open
    assert (len(made), query("SELECT n FROM t")) == (1, [(1,)])


def test_a_file_that_a_load_makes_has_large_pages_and_one_that_is_there_keeps_its_own(
    url: str, query: Query, tmp_path: Path
) -> None:
    put(url, to("t"), {"n": [1]})
    assert query("PRAGMA page_size") == [(16 * 1024,)]
    assert query("PRAGMA journal_mode") == [("wal",)]  # its readers need not wait for a load
    there = tmp_path / "there.db"
    with closing(sqlite3.connect(there)) as connection:
        connection.execute("CREATE TABLE t (n INTEGER)")
    put(f"sqlite:///{there}", to("t"), {"n": [1]})
    with closing(sqlite3.connect(there)) as connection:
        assert connection.execute("SELECT n FROM t").fetchall() == [(1,)]
        assert connection.execute("PRAGMA page_size").fetchone() == (4096,)
