"""What holds for every format: which one it is, and names of columns that stay with their values."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.sluice.loading.readings import refusal, rows, seen, written
from tests.unit.sluice.loading.spreadsheets import row, text, write_xlsx


def csv(path: Path, names: list[str]) -> None:
    path.write_text(",".join(names) + "\n" + ",".join("1" for _ in names) + "\n")


def parquet(path: Path, names: list[str]) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array(["x"]) for _ in names], names=names), path)


def fixed(path: Path, names: list[str]) -> None:
    path.write_text("x" * len(names) + "\n")


WRITE: dict[str, Callable[[Path, list[str]], None]] = {"x.csv": csv, "x.parquet": parquet, "x.fwf": fixed}


@pytest.mark.parametrize("name", WRITE)
@pytest.mark.parametrize("names", [["Id", "id"], ["a", "id", "ID"], ["caf\u00e9", "cafe\u0301"], ["STRASSE", "straße"]])
def test_columns_that_a_database_takes_for_one_are_refused(tmp_path: Path, name: str, names: list[str]) -> None:
    WRITE[name](tmp_path / name, names)
    contract = {"schema": {"fields": [{"name": one, "width": 1} for one in names]}} if name == "x.fwf" else None
    assert "differ only in letter case" in refusal(tmp_path / name, contract)


@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
@pytest.mark.parametrize("names", [["id", "id", "id_2"], ["id", "id_2", "id"], ["ID_3", "id", "id"]])
def test_a_name_that_would_be_made_up_and_is_there_is_refused(tmp_path: Path, name: str, names: list[str]) -> None:
    WRITE[name](tmp_path / name, names)
    said = refusal(tmp_path / name)
    assert "stands there twice" in said or "differ only in letter case" in said


@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
@pytest.mark.parametrize("names", [["id", "id"], ["id", "id_2"], ["", "", "x"], ["a_1", "a_2", "a"], ["a b", "a_b"]])
def test_names_that_are_told_apart_are_read(tmp_path: Path, name: str, names: list[str]) -> None:
    WRITE[name](tmp_path / name, names)
    contract = {"dialect": {"headerRows": [1]}} if name == "x.csv" else None
    assert seen(tmp_path / name, contract)[2].columns == names


def test_the_contract_says_the_format_where_the_name_does_not(tmp_path: Path) -> None:
    path = written(tmp_path, "export.dat", json.dumps([{"a": 1}]))
    assert "export.dat is of no known kind: its name must end in .csv, " in refusal(path)
    assert rows(path, {"format": "json"}) == [{"a": 1}]
    assert "which is none of .csv, " in refusal(path, {"format": "sas7bdat"})


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"\x1f\x8b\x08\x00", "packed with gzip"),
        (b"PK\x03\x04rest", "packed with ZIP"),
        (b"PAR1rest", "a Parquet file"),
        (b"ARROW1\0\0", "an Arrow file"),
        (b"%PDF-1.7", "a PDF document"),
        (b"SQLite format 3\0", "a SQLite database"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Office document"),
    ],
)
@pytest.mark.parametrize("name", ["x.csv", "x.json", "x.jsonl", "x.xml", "x.txt"])
def test_what_is_no_text_is_not_read_as_one(tmp_path: Path, name: str, content: bytes, what: str) -> None:
    assert f"{name} is {what}" in refusal(written(tmp_path, name, content))


def test_a_workbook_under_the_name_of_a_text_is_refused(tmp_path: Path) -> None:
    path = write_xlsx(tmp_path / "x.csv", {"S": row(text("a"))})
    assert "packed with ZIP" in refusal(path)
