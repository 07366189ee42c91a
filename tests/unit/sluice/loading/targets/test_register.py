"""Whether a file is one that was loaded before, and what becomes of one that was written on since."""

from __future__ import annotations

import gzip
import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from sluice.loading import load_file
from sluice.loading.contracts.contract import parse_contract
from sluice.loading.errors import RefusedFile, TargetFailed
from sluice.loading.reporting.report import LoadReport
from sluice.loading.targets import Destination, FileVersion
from sluice.loading.targets.register import load_key


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "data.db"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "x.csv"
    found.write_text("id\n1\n2\n")
    return found


def load(path: Path, database: Path, contract: dict[str, Any] | None = None) -> LoadReport:
    found = parse_contract(contract) if contract else None
    return load_file(path, f"sqlite:///{database}", table="t", contract=found)


def ids(database: Path) -> list[int]:
    connection = sqlite3.connect(database)
    try:
        return [one for (one,) in connection.execute("SELECT id FROM t ORDER BY id")]
    finally:
        connection.close()


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_a_file_that_was_written_on_after_its_load_is_refused_and_no_row_is_doubled(path: Path, database: Path) -> None:
    load(path, database)
    append(path, "3\n")
    with pytest.raises(RefusedFile) as caught:
        load(path, database)
    assert "x.csv: its first 7 bytes, 2 rows, went into the table t at" in str(caught.value)
    assert "mode: upsert" in str(caught.value)
    assert ids(database) == [1, 2]
    append(path, "4\n")
    with pytest.raises(RefusedFile, match="its first 7 bytes"):
        load(path, database)


def test_the_same_holds_for_packed_files(tmp_path: Path, database: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"id": 1}\n'))
    load(path, database)
    with path.open("ab") as file:
        file.write(gzip.compress(b'{"id": 2}\n'))
    with pytest.raises(RefusedFile, match="1 rows, went into the table t"):
        load(path, database)


def test_a_file_that_grows_can_replace_its_rows_or_update_them(path: Path, database: Path) -> None:
    schema = {"fields": [{"name": "id", "type": "integer"}], "primaryKey": "id"}
    for mode in ("replace", "upsert"):
        load(path, database, {"schema": schema, "sluice": {"mode": mode}})
        append(path, f"{len(mode)}\n")
        load(path, database, {"schema": schema, "sluice": {"mode": mode}})
    assert ids(database) == [1, 2, 6, 7]


def test_a_file_that_had_only_its_header_may_grow(path: Path, database: Path) -> None:
    load(path, database)
    other = path.with_name("y.csv")
    other.write_text("id\n")
    assert load(other, database).rows == 0
    append(other, "3\n")
    assert load(other, database).rows == 1
    assert ids(database) == [1, 2, 3]


def test_a_file_that_is_written_over_is_a_new_one(path: Path, database: Path) -> None:
    load(path, database)
    with path.open("r+") as file:
        file.write("id\n3\n4\n5\n")
    assert load(path, database).rows == 3
    assert ids(database) == [1, 2, 3, 4, 5]


def test_another_file_may_begin_alike(path: Path, database: Path) -> None:
    load(path, database)
    other = path.with_name("y.csv")
    other.write_text("id\n1\n2\n3\n")
    assert load(other, database).rows == 3


def test_a_file_in_the_place_of_a_loaded_one_may_begin_alike(path: Path, database: Path) -> None:
    for number in range(3, 20):
        load(path, database)
        path.unlink()
        path.write_text("id\n1\n2\n" + f"{number}\n" * (number - 2))


def test_a_file_that_was_moved_or_made_readable_is_the_same(path: Path, database: Path) -> None:
    load(path, database)
    path.chmod(0o640)
    moved = path.rename(path.with_name("y.csv"))
    assert load(moved, database).already


def test_a_file_that_is_made_anew_is_a_new_one_though_it_has_the_inode_and_the_time_of_the_last(
    path: Path, database: Path
) -> None:
    reused = 0
    for _ in range(20):
        os.utime(path, (1_700_000_000, 1_700_000_000))
        inode = path.stat().st_ino
        assert load(path, database).rows == 2
        path.unlink()
        path.write_text("id\n1\n2\n")
        reused += path.stat().st_ino == inode
    assert len(ids(database)) == 40
    if not reused:
        pytest.skip("this file system did not give an inode twice")


def test_where_the_time_of_making_is_not_known_version_and_content_decide() -> None:
    to = Destination(table="t", flow="f")
    known = load_key(to, FileVersion("x.csv", "1-2-3", "d"))
    assert known == load_key(to, FileVersion("y.csv", "1-2-3", "d", None))
    assert known != load_key(to, FileVersion("x.csv", "1-2-3", "d", 5))


def test_a_register_of_an_older_version_is_named_with_the_statements_that_mend_it(path: Path, database: Path) -> None:
    load(path, database)
    with closing(sqlite3.connect(database)) as connection:
        for column in ("made_ns", "row_count"):
            connection.execute(f"ALTER TABLE sluice_loads DROP COLUMN {column}")
    path.write_text("id\n3\n")
    with pytest.raises(TargetFailed, match="older version of Sluice") as failed:
        load(path, database)
    assert not failed.value.transient
    (statements,) = re.findall(r"\((ALTER .*?)\), ", str(failed.value))
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(statements)
    load(path, database)
    assert ids(database) == [1, 2, 3]
