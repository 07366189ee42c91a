"""The files of an archive go into one table: their columns by name, in the order of the first."""

from __future__ import annotations

import datetime as dt
import io
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sluice.budgets import Budget
from sluice.loading.errors import RefusedFile
from sluice.loading.file_rows import FileRows, file_rows
from sluice.loading.reading.source import members
from tests.unit.sluice.loading.loaded import load, query


def archive(path: Path, **files: str | bytes) -> Path:
    with zipfile.ZipFile(path, "w") as zipped:
        for name, content in files.items():
            zipped.writestr(name.replace("_", "."), content)
    return path


def parquet(**columns: Any) -> bytes:
    written = io.BytesIO()
    pq.write_table(pa.table(columns), written)
    return written.getvalue()


@pytest.fixture
def rows_of() -> Iterator[Callable[[Path], FileRows]]:
    """How the rows of a file are read, for as long as the test goes on."""
    with ExitStack() as stack:

        def opened(path: Path) -> FileRows:
            file = stack.enter_context(path.open("rb"))
            return file_rows(list(members(file, path.name, Budget())), None, path.name)

        yield opened


def read(rows: FileRows) -> list[tuple[str, dict[str, Any]]]:
    return [(label, row) for label, batch in rows.batches() for row in batch.rows.to_pylist()]


Opened = Callable[[Path], FileRows]


def test_columns_of_the_files_may_stand_in_any_order(tmp_path: Path, rows_of: Opened) -> None:
    path = archive(tmp_path / "x.zip", a_csv="id,name\n1,Ann\n", b_csv="NAME,id\nBob,2\n")
    found = rows_of(path)
    assert [(label, tuple(row.values())) for label, row in read(found)] == [
        ("x.zip/a.csv", ("1", "Ann")),
        ("x.zip/b.csv", ("2", "Bob")),
    ]
    assert (found.columns, found.typed, found.unit) == (["id", "name"], False, "line")
    assert set(found.evidence) == {"x.zip/a.csv", "x.zip/b.csv"}


@pytest.mark.parametrize("other", ["id,age\n1,2\n", "id\n1\n", "id,name,more\n1,2,3\n"])
def test_files_with_other_columns_are_refused(tmp_path: Path, rows_of: Opened, other: str) -> None:
    found = rows_of(archive(tmp_path / "x.zip", a_csv="id,name\n1,Ann\n", b_csv=other))
    with pytest.raises(RefusedFile, match=r"x\.zip/b\.csv has the columns .* so they must have the same columns"):
        read(found)


def test_files_of_several_kinds_are_refused(tmp_path: Path, rows_of: Opened) -> None:
    path = archive(tmp_path / "x.zip", a_csv="id,name\n1,Ann\n", b_parquet=parquet(id=[1], name=["Ann"]))
    with pytest.raises(RefusedFile, match=r"holds files of several kinds \(x\.zip/a\.csv, x\.zip/b\.parquet\)"):
        rows_of(path)


def test_progress_goes_from_file_to_file_to_the_end(tmp_path: Path, rows_of: Opened) -> None:
    told: list[tuple[float, int]] = []
    path = archive(tmp_path / "x.zip", a_csv="id,n\n1,2\n", b_csv="id,n\n1,2\n3,4\n")
    for _ in rows_of(path).batches(lambda share, rows: told.append((share, rows))):
        pass
    assert [rows for _, rows in told] == [1, 3]
    assert sorted(share for share, _ in told) == [share for share, _ in told]
    assert all(0 <= share <= 1 for share, _ in told)


def test_a_column_with_numbers_in_one_file_and_days_in_another_is_text(tmp_path: Path, database: Path) -> None:
    day = dt.date(2024, 1, 2)
    path = archive(tmp_path / "x.zip", a_parquet=parquet(v=[1, 2]), b_parquet=parquet(v=[day, None]))
    report = load(path, database)
    assert query(database, "SELECT v FROM t") == [("1",), ("2",), ("2024-01-02",), (None,)]
    assert "least" not in report.columns[0]
