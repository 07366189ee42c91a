"""Rows into a folder of Parquet files, which is read with DuckDB and with pyarrow's datasets."""

from __future__ import annotations

import datetime as dt
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from sluice.errors import TableRefused
from sluice.loading import load_file
from sluice.loading.contracts.contract import parse_contract
from sluice.loading.errors import AlreadyLoaded, RefusedFile, TargetFailed
from sluice.loading.targets import Destination, open_target
from tests.support.target_suite import PEOPLE, check_bad_rows, load_known_keys, put, to, version

AT = dt.datetime(2026, 3, 1, 8, 30, 15, 250_000, tzinfo=dt.UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "lake"


@pytest.fixture
def url(folder: Path) -> str:
    return f"parquet:///{folder}"


def query(folder: Path, sql: str, table: str = "t") -> list[tuple[Any, ...]]:
    found = f"read_parquet('{folder}/{table}/*.parquet', union_by_name = true)"
    return duckdb.connect().execute(sql.replace("FROM t", f"FROM {found} t")).fetchall()


def test_a_load_adds_a_file_and_readers_of_datasets_see_all_rows(folder: Path, url: str) -> None:
    put(url, to(), PEOPLE)
    put(url, to(), {"NAME": ["Cy"], "id": [3]}, 2)
    assert query(folder, "SELECT * FROM t ORDER BY id") == [(1, "Ann"), (2, "Bo"), (3, "Cy")]
    assert pa.dataset.dataset(folder / "t", format="parquet").count_rows() == 3
    assert len(list((folder / "t").glob("*.parquet"))) == 2


def test_rows_whose_key_another_file_has_loaded_are_put_aside_or_refused(
    folder: Path, url: str, tmp_path: Path
) -> None:
    check_bad_rows(load_known_keys(url, tmp_path))
    assert query(folder, "SELECT id, kind FROM t ORDER BY id", "ids_") == [(1, "a"), (2, "b"), (3, "z")]
    (tmp_path / "ids_-3.csv").write_text("id,kind\n4,x\n3,y\n")
    fields = [{"name": "id", "type": "integer"}, {"name": "kind", "type": "string"}]
    keyed = parse_contract({"schema": {"fields": fields, "primaryKey": "id"}, "sluice": {"table": "ids_"}})
    with pytest.raises(RefusedFile, match=r"line 3, column 'id': '3' is a key .*, from ids_-2\.csv, loaded at"):
        load_file(tmp_path / "ids_-3.csv", url, contract=keyed)
    assert query(folder, "SELECT count(*) FROM t", "ids_") == [(3,)]


def test_values_arrive_with_their_types(folder: Path, url: str) -> None:
    rows = pa.record_batch({
        "i": pa.array([1, None]), "r": pa.array([1.5, float("nan")]), "s": ["é", ""], "b": [True, None],
        "y": [b"\xff", None], "d": pa.array([AT.date(), None]), "utc": pa.array([AT, None], pa.timestamp("us", "UTC")),
        "n": pa.array([Decimal("1.10"), None], pa.decimal128(5, 2)),
    })  # fmt: skip
    put(url, to(), rows)
    found = pa.dataset.dataset(folder / "t", format="parquet").to_table()
    assert found.schema.types == rows.schema.types
    assert found.to_pylist()[0] == rows.to_pylist()[0]


def test_one_version_of_a_file_is_loaded_once(folder: Path, url: str) -> None:
    put(url, to(), PEOPLE)
    with pytest.raises(AlreadyLoaded):
        put(url, to(), PEOPLE)
    put(url, to("other"), PEOPLE)
    with open_target(url) as target:
        assert target.is_loaded(to(), version(1))
        assert not target.is_loaded(to(), version(2))
    assert query(folder, "SELECT count(*) FROM t") == [(2,)]


def test_a_file_that_was_written_on_is_refused(tmp_path: Path, url: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text("id,n\n1,2\n")
    load_file(path, url, table="t")
    with path.open("a") as file:
        file.write("2,3\n")
    with pytest.raises(RefusedFile, match="its first 9 bytes, 1 rows"):
        load_file(path, url, table="t")


def test_nothing_stays_of_a_load_that_fails(folder: Path, url: str) -> None:
    with pytest.raises(ZeroDivisionError):
        put(url, to(), PEOPLE, fails=True)
    assert [one.name for one in (folder / "t").iterdir()] == ["_lock"]
    put(url, to(), {"other": ["x"]})
    assert query(folder, "SELECT * FROM t") == [("x",)]


KILLED = """
import os, signal, sys
import pyarrow as pa
from sluice.loading.targets import open_target
from tests.support.target_suite import to, version
rows = pa.record_batch({"id": [1, 2], "name": ["Ann", "Bo"]})
with open_target(sys.argv[1]) as target, target.load(to(), target.plan(to(), rows.schema), version(1)) as load:
    load.write(rows)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_load_that_is_killed_leaves_nothing_that_is_read(folder: Path, url: str, checkout: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, url], cwd=checkout, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert list((folder / "t").glob(".*.part"))
    assert not list((folder / "t").glob("*.parquet"))
    put(url, to(), PEOPLE)
    assert not list((folder / "t").glob(".*.part"))
    assert query(folder, "SELECT count(*) FROM t") == [(2,)]


def test_columns_are_refused_or_added_and_the_others_are_null(folder: Path, url: str) -> None:
    put(url, to(), PEOPLE)
    with pytest.raises(RefusedFile, match=r"the table t lacks the columns \['age'\]"):
        put(url, to(), {"id": [3], "age": [30]}, 2)
    put(url, to(new_columns="add"), {"id": [3], "age": [30]}, 2)
    put(url, to(), {"age": [40]}, 3)
    assert query(folder, "SELECT id, name, age FROM t ORDER BY age, id") == [
        (3, None, 30), (None, None, 40), (1, "Ann", None), (2, "Bo", None),
    ]  # fmt: skip


def test_a_wider_type_another_mode_and_a_strange_name_are_refused_with_what_to_do(url: str) -> None:
    put(url, to(), {"v": [1]})
    with pytest.raises(RefusedFile, match=r"'v' holds double, not int64: .* load into another table"):
        put(url, to(wider_types="widen"), {"v": [1.5]}, 2)
    for mode in ("replace", "upsert"):
        with pytest.raises(RefusedFile, match=f"takes `mode: append` only, and the contract says {mode}"):
            put(url, to(mode=mode, key=("v",)), {"v": [1]}, 2)
    for name in ("_x", ".x", "a/b", "sluice_x"):
        with pytest.raises(TableRefused):
            put(url, to(name), {"v": [1]}, 2)


def test_a_file_whose_values_do_not_fit_the_types_that_are_there_is_told_what_to_do(
    tmp_path: Path, folder: Path, url: str
) -> None:
    put(url, to(), {"v": [1]})
    path = tmp_path / "x.csv"
    path.write_text("v\n2\n2.5\n")
    with pytest.raises(RefusedFile, match="are not written anew for a wider type; load into another table"):
        load_file(path, url, table="t", flow="test")
    assert query(folder, "SELECT v FROM t") == [(1,)]


def test_a_table_of_another_flow_or_of_nobody_is_not_reached_by_a_files_name(folder: Path, url: str) -> None:
    put(url, to(), PEOPLE)
    with pytest.raises(TableRefused, match="belongs to the flow test"), open_target(url) as target:
        target.plan(Destination(table="t", flow="other"), pa.schema([]))
    (folder / "by_hand").mkdir()
    pq.write_table(pa.table(PEOPLE), folder / "by_hand" / "x.parquet")
    with pytest.raises(TableRefused, match="belongs to no flow"):
        put(url, to("by_hand", outside=True, spelling="by hand"), PEOPLE)
    put(url, to("by_hand"), PEOPLE)
    assert query(folder, "SELECT count(*) FROM t", "by_hand") == [(4,)]
    put(url, to("a_b", outside=True, spelling="a-b"), PEOPLE)
    with pytest.raises(TableRefused, match="is filled from files named 'a-b', and the name 'a b' leads to it too"):
        put(url, to("a_b", outside=True, spelling="a b"), PEOPLE, 3)


def test_loads_into_one_table_wait_for_each_other(folder: Path, url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: put(url, to(), {"n": [number] * 100}, number), range(8)))
    assert query(folder, "SELECT count(*), count(DISTINCT n) FROM t") == [(800, 8)]


def test_the_last_loads_are_remembered_with_what_became_of_their_rows(tmp_path: Path, url: str) -> None:
    for number, rows in enumerate(("1,\n", "2,x\n3,\n"), start=1):
        path = tmp_path / f"{number}.csv"
        path.write_text(f"id,note\n{rows}")
        load_file(path, url, table="t", schema="s")
    with open_target(url) as target:
        first, second = target.history("s.t", 5)
        assert [one.file for one in target.history("s.t", 1)] == ["2.csv"]
    assert (first.file, first.quality.rows, first.quality.empty_shares) == ("1.csv", 1, {"id": 0.0, "note": 1.0})
    assert second.quality.empty_shares == {"id": 0.0, "note": 0.5}


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TargetFailed, match="Not a directory"):
        put(f"parquet:///{tmp_path / 'file'}", to(), PEOPLE)
    with pytest.raises(ValueError, match="needs a folder"):
        put("parquet://", to(), PEOPLE)
