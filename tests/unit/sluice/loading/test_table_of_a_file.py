"""Which table a file goes into, by its name."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.unit.sluice.loading.loaded import load, query, refusal


@pytest.mark.parametrize(
    "hostile", ['a"; DROP TABLE t; --', "a'b", "select", "a%(b)s", "a:b", "a(b)", "[a]", "a.b", "é"]
)
def test_names_of_tables_and_columns_are_only_ever_names(written: Any, database: Path, hostile: str) -> None:
    path = written("x.json", f'[{{{__import__("json").dumps(hostile)}: 1, "b": 2}}]')
    load(path, database, hostile)
    quoted = '"' + hostile.replace('"', '""') + '"'
    assert query(database, f"SELECT {quoted}, b FROM {quoted}") == [(1, 2)]


@pytest.mark.parametrize("name", ["order_reservations.csv", "Order Reservations.csv", "ORDER-RESERVATIONS.csv"])
def test_a_files_name_does_not_put_rows_into_another_flows_table(written: Any, database: Path, name: str) -> None:
    path = written(name, "order_id,amount,status,changed_at\nforged-1,1,confirmed,2026-01-01\n")
    first = written("first.csv", "order_id,amount,status,changed_at\nx,1,confirmed,2026-01-01\n")
    load(first, database, "order_reservations", flow="order-approval")
    assert "belongs to the flow order-approval" in refusal(path, database, None)
    assert query(database, "SELECT order_id FROM order_reservations") == [("x",)]


@pytest.mark.parametrize(
    ("file", "table"),
    [("Orders 2026-03.csv.gz", "orders_2026_03"), ("weather.CSV", "weather"), ("a.b.jsonl", "a_b"), ("x.zip", "x")],
)
def test_the_table_is_named_after_the_file(written: Any, database: Path, file: str, table: str) -> None:
    text = b'{"id": "x"}\n' if ".jsonl" in file else b"id\nx\n"
    path = written(file, gzip.compress(text) if file.endswith(".gz") else text)
    if file.endswith(".zip"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("inner.csv", text)
    assert load(path, database, None).table == table


@pytest.mark.parametrize("name", ["x.csv", "x~2.csv", "x~10.csv", "x~2~3.csv", "X~2.CSV"])
def test_a_file_that_was_put_away_under_another_name_goes_to_the_table_of_its_own(
    written: Any, database: Path, name: str
) -> None:
    assert load(written(name, "id\n1\n"), database, None).table == "x"


@pytest.mark.parametrize("name", ["x~1.csv", "x~2b.csv", "x~02.csv"])
def test_other_names_with_a_tilde_are_their_own(written: Any, database: Path, name: str) -> None:
    assert load(written(name, "id\n1\n"), database, None).table != "x"
