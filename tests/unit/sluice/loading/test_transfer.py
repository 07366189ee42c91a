"""What becomes of rows that break a contract: refused, put aside, or loaded around where somebody approves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sluice.loading.transfer import NeedsApproval
from tests.unit.sluice.loading.loaded import load, query, refusal, tables

FIELDS = [
    {"name": "id", "type": "integer", "constraints": {"required": True, "unique": True}},
    {"name": "amount", "type": "number", "decimalChar": ",", "constraints": {"minimum": 0, "maximum": 1000}},
    {"name": "day", "type": "date", "format": "%d.%m.%Y"},
    {"name": "kind", "type": "string", "constraints": {"enum": ["a", "b"], "pattern": "[a-z]"}},
]


CONTRACT = {"dialect": {"delimiter": ";"}, "schema": {"fields": FIELDS, "missingValues": ["", "NULL"]}}


TEXT = """id;amount;day;kind
1;1,50;31.12.2025;a
2;NULL;29.02.2024;b
"""


BAD = """3;-1;01.01.2025;a
x;1;01.01.2025;a
4;1;30.02.2025;a
5;1;01.01.2025;c
1;1;01.01.2025;a
6;1;01.01.2025
;1;01.01.2025;a
"""


def contract(**rules: Any) -> dict[str, Any]:
    return {**CONTRACT, "sluice": rules}


def test_a_contract_says_what_values_are(written: Any, database: Path) -> None:
    load(written("x.csv", TEXT), database, contract=contract())
    assert query(database, "SELECT * FROM t") == [(1, 1.5, "2025-12-31", "a"), (2, None, "2024-02-29", "b")]


def test_bad_rows_are_refused_with_the_first_and_their_number(written: Any, database: Path) -> None:
    message = refusal(written("x.csv", TEXT + BAD), database, contract=contract())
    assert message == "x.csv, line 4, column 'amount': '-1' is below 0.0 (and 6 more of 9 rows)"
    assert not database.exists() or tables(database) == set()


def test_bad_rows_are_put_aside_mended_and_loaded(written: Any, database: Path, tmp_path: Path) -> None:
    report = load(written("x.csv", TEXT + BAD), database, contract=contract(on_bad_rows="quarantine"))
    assert query(database, "SELECT id FROM t") == [(1,), (2,)]
    assert report.rejected == tmp_path / "rejected" / "x.csv.rejected.csv"
    assert report.message == "2 rows of x.csv loaded into the table t, 7 bad rows put into x.csv.rejected.csv"
    assert report.rejected is not None
    text = report.rejected.read_text()
    assert text.splitlines() == [
        "sluice_place,sluice_column,sluice_value,sluice_reason,id,amount,day,kind",
        "x.csv:4,amount,-1,is below 0.0,3,-1,01.01.2025,a",
        "x.csv:5,id,x,is not an integer of 64 bits,x,1,01.01.2025,a",
        "x.csv:6,day,30.02.2025,does not fit the format '%d.%m.%Y',4,1,30.02.2025,a",
        'x.csv:7,kind,c,"is none of a, b",5,1,01.01.2025,c',
        "x.csv:8,,,\"the contract says `unique`, and an earlier row has the same 'id'\",1,1,01.01.2025,a",
        'x.csv:10,id,,"is empty, and the contract requires a value",,1,01.01.2025,a',
        "x.csv:9,,,3 fields where the header names 4: column 'kind' has none,6,1,01.01.2025",
    ]
    again = written("x.csv.rejected.csv", text)
    assert "line 2, column 'amount'" in refusal(again, database, contract=contract())
    mended = text.replace(",3,-1,", ",3,1,").replace("30.02.2025,a", "28.02.2025,a")
    report = load(written("x.csv.rejected.csv", mended), database, contract=contract(on_bad_rows="quarantine"))
    assert query(database, "SELECT id FROM t") == [(1,), (2,), (3,), (4,), (1,)]
    assert report.bad is not None
    assert report.bad.count == 4


def test_bad_rows_of_another_file_of_the_same_name_are_kept_beside(written: Any, database: Path) -> None:
    rules = contract(on_bad_rows="quarantine")
    first = load(written("x.csv", TEXT + BAD), database, contract=rules).rejected
    second = load(written("x.csv", TEXT + BAD + "y;1;01.01.2025;a\n"), database, contract=rules).rejected
    assert first is not None
    assert second is not None
    assert (first.name, second.name[:6], second.name[-13:]) == ("x.csv.rejected.csv", "x.csv.", ".rejected.csv")
    assert len(second.name) == len(first.name) + 9
    again = written(second.name, second.read_text())
    assert "line 2, column 'amount'" in refusal(again, database, None, contract=contract())


def test_nothing_is_put_aside_of_a_file_that_is_not_loaded(written: Any, database: Path, tmp_path: Path) -> None:
    rules = contract(on_bad_rows="quarantine")
    assert "no row is left to be loaded" in refusal(
        written("x.csv", "id;amount;day;kind\nx;1;;a\ny;1;;a\n"), database, contract=rules
    )
    database.parent.mkdir(exist_ok=True)
    query(database, "CREATE TABLE t (id INTEGER CHECK (id <> 2), amount REAL, day DATE, kind TEXT)")
    assert "CHECK" in refusal(written("x.csv", TEXT + BAD), database, contract=rules)
    assert list((tmp_path / "rejected").iterdir()) == []


def test_more_bad_rows_than_allowed_are_loaded_around_only_where_somebody_approves(
    written: Any, database: Path
) -> None:
    path = written("x.csv", TEXT + BAD)
    rules = contract(on_bad_rows="approve", max_bad_share=0.5)
    with pytest.raises(NeedsApproval, match=r"77.8% of the rows are bad, and the contract allows 50.0%") as caught:
        load(path, database, contract=rules)
    assert caught.value.bad is not None
    assert (caught.value.bad.count, caught.value.bad.rows) == (7, 9)
    assert caught.value.bad.examples[0] == {
        "place": "x.csv, line 4",
        "column": "amount",
        "value": "-1",
        "reason": "is below 0.0",
    }
    assert load(path, database, contract=rules, approved=True).rows == 2
    few = contract(on_bad_rows="approve", max_bad_share=0.8)
    assert load(path, database, "u", contract=few).rows == 2


def test_a_value_that_a_tables_own_type_does_not_hold_is_a_bad_row(written: Any, database: Path) -> None:
    database.parent.mkdir()
    query(database, "CREATE TABLE t (id INTEGER, at DATE)")
    path = written("x.csv", "id,at\n1,2025-12-31\n2,soon\n")
    said = "x.csv, line 3, column 'at': 'soon' is not a date like 2026-12-31, as that column of the table is"
    assert refusal(path, database) == said
