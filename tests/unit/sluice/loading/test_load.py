"""What loading a file leaves in a database: all rows of it once, or nothing."""

from __future__ import annotations

import gzip
import json
import os
import sqlite3
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sluice.budgets import Budget
from sluice.errors import OverBudget
from sluice.loading.formats.delimited import blocks
from sluice.loading.targets import sqlite as sqlite_target
from tests.unit.sluice.loading.loaded import load, query, refusal, tables


def test_values_arrive_with_their_types_and_empty_fields_as_null(orders: Path, database: Path) -> None:
    report = load(orders, database)
    assert query(database, "SELECT * FROM t") == [(1, "007", 1.5, None), (2, "012", 2.0, "x")]
    assert [(one["column"], one["type"], one["empty"]) for one in report.columns] == [
        ("id", "integer", 0),
        ("code", "text", 0),
        ("total", "real", 0),
        ("note", "text", 1),
    ]
    assert report.message == "2 rows of orders.csv loaded into the table t"
    assert report.made


def test_integers_of_64_bits_and_beyond_keep_every_digit(written: Any, database: Path) -> None:
    path = written("x.json", '[{"a": 9223372036854775807, "b": 92233720368547758070, "c": 12345678901234567.25}]')
    load(path, database)
    assert query(database, "SELECT * FROM t") == [(9223372036854775807, "92233720368547758070", "12345678901234567.25")]


def test_json_values_and_nested_ones_are_kept(written: Any, database: Path) -> None:
    path = written("x.jsonl", '{"ok": true, "tags": ["ü", 1], "n": "1"}\n{"ok": false, "n": 1.50}\n')
    load(path, database)
    assert query(database, "SELECT ok, tags, n FROM t") == [(1, '["ü", 1]', "1"), (0, None, "1.50")]


def test_the_same_version_of_a_file_is_loaded_once(orders: Path, database: Path) -> None:
    load(orders, database)
    report = load(orders, database)
    assert report.already
    assert report.message == "orders.csv is in the table t already: nothing to do"
    assert query(database, "SELECT count(*) FROM t") == [(2,)]


def test_the_same_version_goes_into_another_table_too(orders: Path, database: Path) -> None:
    load(orders, database, "one")
    assert not load(orders, database, "other").already


def test_a_file_that_arrives_anew_is_loaded_even_with_the_content_of_before(orders: Path, database: Path) -> None:
    load(orders, database)
    content = orders.read_bytes()
    (orders.parent / "new").write_bytes(content)
    (orders.parent / "new").replace(orders)
    assert not load(orders, database).already
    assert query(database, "SELECT count(*) FROM t") == [(4,)]


def test_a_moved_file_is_the_same_version(orders: Path, database: Path) -> None:
    load(orders, database)
    assert load(orders.rename(orders.with_name("moved.csv")), database).already


def test_a_file_with_a_header_alone_makes_no_table_and_says_so(written: Any, database: Path) -> None:
    path = written("head.csv", "id,name\n")
    report = load(path, database)
    assert report.message == (
        "head.csv has no rows: nothing was loaded into t; the table is made with the first rows, which show the types"
    )
    assert tables(database) == set()
    fields = [{"name": "id", "type": "integer"}, {"name": "name", "type": "string"}]
    assert load(path, database, contract={"schema": {"fields": fields}}).made
    assert tables(database) == {"t"}
    load(written("real.csv", "id,name\n1,Ann\n"), database)
    assert "lacks the columns ['x']" in refusal(written("head2.csv", "id,x\n"), database)


@pytest.mark.parametrize("content", ["", "[]", "{}", "[{}]"])
def test_a_document_without_values_makes_no_table_and_says_so(written: Any, database: Path, content: str) -> None:
    report = load(written("x.json", content), database)
    assert report.message.startswith("x.json has no rows: nothing was loaded into t")
    assert tables(database) == set()


def test_nothing_stays_of_a_file_that_changes_while_it_is_loaded(
    written: Any, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written("x.csv", "a,b\n" + "1,2\n" * 3000)

    def change(share: float, _rows: int) -> None:
        if share > 0.5:
            os.utime(path, ns=(0, 0))

    assert "changed while it was read" in refusal(path, database, progress=change)
    assert tables(database) == set()


def test_a_batch_without_rows_takes_any_type(written: Any, database: Path) -> None:
    fields = [{"name": "o", "type": "object"}, {"name": "at", "type": "time"}]
    contract = {"schema": {"fields": fields}, "sluice": {"on_bad_rows": "quarantine"}}
    assert "no row is left to be loaded" in refusal(written("x.csv", "o,at\n1,2,3\n"), database, contract=contract)


def test_a_nul_character_is_refused_with_its_place(written: Any, database: Path) -> None:
    message = refusal(written("x.csv", "name\nfine\nnot\0fine\n"), database)
    assert message == "x.csv: line 3, column 'name': the value holds a NUL character, which databases refuse"


def test_loads_into_one_sqlite_file_wait_for_each_other(written: Any, database: Path) -> None:
    paths = [written(f"{n}.csv", "n,v\n" + f"{n},1\n" * 500) for n in range(8)]
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
    monkeypatch.setattr(sqlite_target, "WAIT_SECONDS", 1)
    reader = sqlite3.connect(database, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM one").fetchone() == (2,)
    assert not load(orders, database, "other").already
    reader.close()


def test_one_version_loaded_by_two_at_once_is_there_once(orders: Path, database: Path) -> None:
    start = threading.Barrier(4)

    def run(_: int) -> bool:
        start.wait()
        return load(orders, database).already

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(run, range(4)))
    assert answers.count(False) == 1
    assert query(database, "SELECT count(*) FROM t") == [(2,)]


def test_a_parquet_file_is_loaded(tmp_path: Path, database: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"n": list(range(95)), "blob": [b"\x00"] * 95}), path, row_group_size=10)
    load(path, database)
    assert query(database, "SELECT count(*), sum(n), max(blob) FROM t") == [(95, 95 * 47, b"\x00")]


def test_a_link_in_the_place_of_a_file_is_not_loaded(written: Any, tmp_path: Path, database: Path) -> None:
    (tmp_path / "orders.csv").symlink_to(written("secret", "client,key\na,b\n"))
    assert "symbolic link" in refusal(tmp_path / "orders.csv", database)


def test_a_file_that_is_gone_says_so(tmp_path: Path, database: Path) -> None:
    assert "cannot be read: No such file or directory" in refusal(tmp_path / "gone.csv", database)


def test_a_name_that_is_not_utf_8_can_be_shown(tmp_path: Path, database: Path) -> None:
    path = tmp_path / b"caf\xe9.csv".decode(errors="surrogateescape")
    path.write_text("a,b\n1\n")
    message = refusal(path, database)
    assert message.encode()
    assert message == "caf\ufffd.csv, line 2: 1 field where the header names 2: column 'b' has none"


def test_an_archive_is_loaded_as_a_whole_or_not_at_all(tmp_path: Path, database: Path) -> None:
    path = tmp_path / "month.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("1.csv", "id,name\n1,Ann\n2,Bob\n")
        archive.writestr("2.csv", "name,id\nCyd,3\n")
    assert load(path, database, None).message == "3 rows of month.zip loaded into the table month"
    assert query(database, "SELECT * FROM month") == [(1, "Ann"), (2, "Bob"), (3, "Cyd")]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("1.csv", "id,name\n4,Dan\n")
        archive.writestr("2.csv", "id,name\n5\n")
    assert "month.zip/2.csv, line 2: 1 field" in refusal(path, database, None)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("1.csv", "id,name\n4,Dan\n")
        archive.writestr("2.csv", "id,nom\n5,x\n")
    assert "they must have the same columns" in refusal(path, database, None)
    assert query(database, "SELECT count(*) FROM month") == [(3,)]


def test_progress_goes_from_none_to_all(written: Any, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 10_000)
    told: list[tuple[float, int]] = []
    load(written("x.csv", "a,b\n" + "1,2\n" * 9_000), database, progress=lambda *one: told.append(one))
    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert len(told) > 2
    assert told[-1] == (1.0, 9_000)


@pytest.mark.parametrize(
    ("limit", "value"), [("rows", 99), ("columns", 1), ("cells", 199), ("line_bytes", 5), ("unpacked_bytes", 100)]
)
def test_each_limit_says_its_name_its_value_and_how_to_raise_it(
    written: Any, database: Path, limit: str, value: int
) -> None:
    path = written("orders.csv", "one,two\n" + "1,2\n" * 100)
    with pytest.raises(OverBudget) as caught:
        load(path, database, budget=Budget.model_validate({limit: value}))
    message = str(caught.value)
    assert "orders.csv" in message
    assert f"the budget {limit} = {value} is reached" in message
    assert f'{{"{limit}": {2 * value}}}' in message
    assert "parameter `budget`" in message
    assert load(path, database).rows == 100


def test_large_values_are_loaded_a_few_at_a_time(tmp_path: Path, database: Path) -> None:
    path = tmp_path / "x.parquet"
    values = [f"{number:02}" + "y" * 5_000_000 for number in range(12)]
    pq.write_table(pa.table({"s": values}), path, compression="none")
    load(path, database, budget=Budget(expansion_ratio=1000))
    assert query(database, "SELECT count(*), min(length(s)), max(substr(s, 1, 2)) FROM t") == [(12, 5_000_002, "11")]


def test_the_same_rows_come_out_of_every_format(written: Any, database: Path, tmp_path: Path) -> None:
    expected = [{"city": "Oslo", "n": 1}, {"city": "Rome", "n": None}]
    as_json = json.dumps(expected)
    pq.write_table(pa.Table.from_pylist(expected), tmp_path / "x.parquet")
    written("x.json", as_json)
    written("x.json.gz", gzip.compress(as_json.encode()))
    written("x.jsonl", "\n\n".join(json.dumps(row) for row in expected))
    written("X.CSV.GZ", gzip.compress(b"city,n\nOslo,1\nRome,\n"))
    for number, name in enumerate(["x.parquet", "x.json", "x.json.gz", "x.jsonl", "X.CSV.GZ"]):
        load(tmp_path / name, database, f"t{number}")
        assert query(database, f"SELECT * FROM t{number}") == [("Oslo", 1), ("Rome", None)]
