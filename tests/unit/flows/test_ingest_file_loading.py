"""What `ingest-file` leaves in a database: all rows of a file once, or nothing."""

from __future__ import annotations

import os
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import flows.ingest_file as module
from flows.ingest_file import BadFile, connect, inspect_file, load_rows, table_name
from sluice import claim_table


def load(path: Path, database: Path, table: str = "t") -> list[dict[str, Any]] | None:
    return load_rows.fn(path, inspect_file.fn(path), table, f"sqlite:///{database}")


def query(database: Path, sql: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(database)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def tables(database: Path) -> set[str]:
    return {name for (name,) in query(database, "SELECT name FROM sqlite_master WHERE type = 'table'")}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "home" / "data.db"


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    path = tmp_path / "orders.csv"
    path.write_text("id,code,total,note\n1,007,1.5,\n2,012,2,x\n", encoding="utf-8")
    return path


def test_values_arrive_with_their_types_and_empty_fields_as_null(orders: Path, database: Path) -> None:
    columns = load(orders, database)
    assert query(database, "SELECT * FROM t") == [(1, "007", 1.5, None), (2, "012", 2.0, "x")]
    assert columns == [
        {"column": "id", "holds": "integer", "empty values": 0},
        {"column": "code", "holds": "text", "empty values": 0},
        {"column": "total", "holds": "real", "empty values": 0},
        {"column": "note", "holds": "text", "empty values": 1},
    ]


def test_integers_of_64_bits_and_beyond_keep_every_digit(tmp_path: Path, database: Path) -> None:
    path = tmp_path / "big.json"
    path.write_text('[{"a": 9223372036854775807, "b": 92233720368547758070, "c": 12345678901234567.25}]')
    load(path, database)
    assert query(database, "SELECT * FROM t") == [(9223372036854775807, "92233720368547758070", "12345678901234567.25")]


def test_json_values_and_nested_ones_are_kept(tmp_path: Path, database: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"ok": true, "tags": ["ü", 1], "n": "1"}\n{"ok": false, "n": 1.50}\n')
    load(path, database)
    assert query(database, "SELECT ok, tags, n FROM t") == [(1, '["ü", 1]', "1"), (0, None, "1.50")]


def test_the_same_version_of_a_file_is_loaded_once(orders: Path, database: Path) -> None:
    assert load(orders, database) is not None
    assert load(orders, database) is None
    assert query(database, "SELECT count(*) FROM t") == [(2,)]


def test_the_same_version_goes_into_another_table_too(orders: Path, database: Path) -> None:
    load(orders, database, "one")
    assert load(orders, database, "other") is not None


def test_a_file_that_arrives_anew_is_loaded_even_with_the_content_of_before(orders: Path, database: Path) -> None:
    load(orders, database)
    content = orders.read_bytes()
    (orders.parent / "new").write_bytes(content)
    (orders.parent / "new").replace(orders)
    assert load(orders, database) is not None
    assert query(database, "SELECT count(*) FROM t") == [(4,)]


def test_a_moved_file_is_the_same_version(orders: Path, database: Path) -> None:
    load(orders, database)
    assert load(orders.rename(orders.with_name("moved.csv")), database) is None


def test_a_value_that_does_not_fit_the_table_is_named_and_nothing_of_its_file_stays(
    orders: Path, database: Path, tmp_path: Path
) -> None:
    load(orders, database)
    bad = tmp_path / "bad.csv"
    bad.write_text("".join(["id,total\n", *(f"{n},1\n" for n in range(2, 5000)), "x1,2\n"]))
    with pytest.raises(BadFile, match=r"bad\.csv, line 5000, column 'id': 'x1' is not integer"):
        load(bad, database)
    assert query(database, "SELECT count(*) FROM t") == [(2,)]
    assert query(database, "SELECT count(*) FROM sluice_loads") == [(1,)]


def test_a_leading_zero_does_not_get_lost_in_a_column_of_numbers(orders: Path, database: Path, tmp_path: Path) -> None:
    load(orders, database)
    other = tmp_path / "other.csv"
    other.write_text("id\n007\n")
    with pytest.raises(BadFile, match="'007' is not integer"):
        load(other, database)


def test_numbers_of_a_later_file_fit_a_column_of_text(orders: Path, database: Path, tmp_path: Path) -> None:
    load(orders, database)
    other = tmp_path / "other.csv"
    other.write_text("code,ID\n15,3\n")
    load(other, database)
    assert query(database, "SELECT id, code, total FROM t WHERE id = 3") == [(3, "15", None)]


def test_a_column_that_the_table_lacks_is_named(orders: Path, database: Path, tmp_path: Path) -> None:
    load(orders, database)
    other = tmp_path / "other.csv"
    other.write_text("id,totl\n3,1\n")
    with pytest.raises(BadFile, match=r"other\.csv has the columns \['totl'\], which the table t lacks"):
        load(other, database)


def test_nothing_stays_when_a_later_line_is_broken(tmp_path: Path, database: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("a,b\n" + "1,2\n" * 3000)
    inspected = inspect_file.fn(path)
    path.write_text("a,b\n" + "1,2\n" * 2999 + "1\n")
    with pytest.raises(BadFile, match="line 3001"):
        load_rows.fn(path, inspected, "t", f"sqlite:///{database}")
    assert tables(database) == set()


def test_nothing_stays_of_a_file_that_changes_while_it_is_loaded(orders: Path, database: Path) -> None:
    inspected = inspect_file.fn(orders)
    os.utime(orders, ns=(0, 0))
    with pytest.raises(BadFile, match="changed while it was being loaded"):
        load_rows.fn(orders, inspected, "t", f"sqlite:///{database}")
    assert tables(database) == set()


def test_a_refusal_of_the_database_names_the_lines(orders: Path, database: Path) -> None:
    database.parent.mkdir()
    query(database, "CREATE TABLE t (id INTEGER, code TEXT CHECK (code <> '012'), total REAL, note TEXT)")
    with pytest.raises(BadFile, match=r"orders\.csv, lines 2 to 3: the database refuses a row: CHECK"):
        load(orders, database)
    assert query(database, "SELECT count(*) FROM t") == [(0,)]


def test_a_nul_character_is_refused_with_its_place(tmp_path: Path, database: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("a\nfine\nnot\0fine\n")
    with pytest.raises(BadFile, match=r"x\.csv, line 3, column 'a': .* holds a NUL character"):
        load(path, database)


@pytest.mark.parametrize(
    "hostile", ['a"; DROP TABLE t; --', "a'b", "select", "a%(b)s", "a:b", "a(b)", "[a]", "a.b", "é"]
)
def test_names_of_tables_and_columns_are_only_ever_names(tmp_path: Path, database: Path, hostile: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(f'[{{{__import__("json").dumps(hostile)}: 1, "b": 2}}]')
    load(path, database, hostile)
    quoted = '"' + hostile.replace('"', '""') + '"'
    assert query(database, f"SELECT {quoted}, b FROM {quoted}") == [(1, 2)]


def test_a_file_of_a_header_alone_fixes_no_types(tmp_path: Path, database: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("a,b\n")
    assert load(path, database) == []
    assert tables(database) == {"sluice_loads"}


def test_loads_into_one_sqlite_file_wait_for_each_other(tmp_path: Path, database: Path) -> None:
    paths = [tmp_path / f"{n}.csv" for n in range(8)]
    for n, path in enumerate(paths):
        path.write_text("n,v\n" + f"{n},1\n" * 500)
    start = threading.Barrier(len(paths))

    def run(path: Path) -> None:
        start.wait()
        load(path, database)

    with ThreadPoolExecutor(len(paths)) as pool:
        list(pool.map(run, paths))
    assert query(database, "SELECT count(*), count(DISTINCT n) FROM t") == [(4000, 8)]


def test_somebody_who_reads_does_not_hold_up_a_load(
    orders: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(orders, database, "one")
    monkeypatch.setattr(module, "SQLITE_WAIT_SECONDS", 0.2)
    reader = sqlite3.connect(database, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM one").fetchone() == (2,)
    assert load(orders, database, "other") is not None
    reader.close()


def test_one_version_loaded_by_two_at_once_is_there_once(orders: Path, database: Path) -> None:
    start = threading.Barrier(4)

    def run(_: int) -> Any:
        start.wait()
        return load(orders, database)

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(run, range(4)))
    assert sum(answer is not None for answer in answers) == 1
    assert query(database, "SELECT count(*) FROM t") == [(2,)]


def test_a_parquet_file_is_loaded_a_batch_at_a_time(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_ROWS", 10)
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"n": list(range(95)), "blob": [b"\x00"] * 95}), path)
    load(path, database)
    assert query(database, "SELECT count(*), sum(n), max(blob) FROM t") == [(95, 95 * 47, b"\x00")]


def test_an_unusable_database_url_is_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"the database URL .* cannot be used"):
        connect("nonsense")


@pytest.mark.parametrize("name", ["order_reservations.csv", "Order Reservations.csv", "ORDER-RESERVATIONS.csv"])
def test_a_files_name_does_not_put_rows_into_another_flows_table(tmp_path: Path, database: Path, name: str) -> None:
    from flows.order_approval import RESERVATIONS

    database.parent.mkdir(parents=True)
    engine = connect(f"sqlite:///{database}")
    with engine.begin() as connection:
        claim_table(connection, "order_reservations", flow="order-approval", outside=False)
        RESERVATIONS.create(connection)
    engine.dispose()
    path = tmp_path / name
    path.write_text("order_id,amount,status,changed_at\nforged-1,1,confirmed,2026-01-01\n")
    with pytest.raises(BadFile, match="belongs to the flow order-approval"):
        load_rows.fn(path, inspect_file.fn(path), table_name(path), f"sqlite:///{database}", outside=True)
    assert query(database, "SELECT * FROM order_reservations") == []
    assert "sluice_loads" not in tables(database)


def test_a_long_name_of_a_file_makes_a_table_of_its_own(tmp_path: Path) -> None:
    names = {table_name(tmp_path / f"{'long ' * 40}{number}.csv") for number in range(3)}
    assert len(names) == 3
    assert all(len(name.encode()) <= 63 for name in names)


def test_a_link_in_the_place_of_a_file_is_not_loaded(tmp_path: Path, database: Path) -> None:
    (tmp_path / "secret").write_text("client,key\na,b\n")
    (tmp_path / "orders.csv").symlink_to(tmp_path / "secret")
    with pytest.raises(BadFile, match="symbolic link"):
        load(tmp_path / "orders.csv", database)
