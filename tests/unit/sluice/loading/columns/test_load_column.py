"""Values as a contract says they are written, and files whose columns are not those of their contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.sluice.loading.loaded import load, query, refusal


@pytest.mark.parametrize("type_", ["datetime", "date", "time", "boolean", "integer"])
def test_a_number_is_no_time_and_no_truth_value_and_a_truth_value_is_no_number(
    written: Any, database: Path, type_: str
) -> None:
    contract = {"schema": {"fields": [{"name": "at", "type": type_}]}}
    value = "true" if type_ == "integer" else "1700000000"
    message = refusal(written("x.json", f'[{{"at": {value}}}]'), database, contract=contract)
    assert f"x.json, line 1, column 'at': '{value}' is" in message


def test_years_beyond_those_of_python_are_loaded_and_refused_as_others_are(tmp_path: Path, database: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(
        pa.table(
            {"d": pa.array([3_000_000] * 2, pa.date32()), "t": pa.array([2**59], pa.timestamp("us")).take([0, 0])}
        ),
        path,
    )
    report = load(path, database)
    assert query(database, "SELECT DISTINCT d, t FROM t") == [("10183-09-21", "20237-04-25 10:45:03.423488")]
    assert report.columns[0]["top"] == {"10183-09-21": 2}
    contract = {"schema": {"fields": [{"name": "d", "type": "integer"}, {"name": "t"}]}}
    assert "column 'd': '10183-09-21' is not an integer" in refusal(path, database, "other", contract=contract)


def test_a_contract_that_cannot_be_is_refused_with_the_field(written: Any, database: Path) -> None:
    contract = {"schema": {"fields": [{"name": "id", "type": "integer", "constraints": {"enum": ["1", "a"]}}]}}
    message = refusal(written("x.csv", "id\n1\n"), database, contract=contract)
    assert message.startswith("x.csv: the contract's field 'id' cannot be: ['1', 'a'] is not an integer")


def test_a_contract_that_drops_every_column_is_refused(written: Any, database: Path) -> None:
    contract = {"schema": {"fields": [{"name": "id", "mask": {"kind": "drop"}}]}}
    assert "the contract drops all of its columns" in refusal(written("x.csv", "id\na\n"), database, contract=contract)


def test_an_enumeration_is_held_against_values_of_any_type(written: Any, database: Path) -> None:
    contract = {"schema": {"fields": [{"name": "v", "constraints": {"enum": ["1", "a"]}}]}}
    assert "'2' is none of 1, a" in refusal(written("x.json", '[{"v": 1}, {"v": 2}]'), database, contract=contract)


def test_columns_and_contract_must_agree(written: Any, database: Path) -> None:
    fields = {"schema": {"fields": [{"name": "Id", "type": "integer"}, {"name": "name", "type": "string"}]}}
    assert "lacks the columns ['name'] of the contract" in refusal(
        written("x.csv", "id,other\n1,2\n"), database, contract=fields
    )
    path = written("x.csv", "id,name,other\n1,Ann,2\n")
    assert "has the columns ['other'], which the contract does not name" in refusal(path, database, contract=fields)
    load(path, database, contract={**fields, "sluice": {"new_columns": "add"}})
    assert query(database, "SELECT Id, name, other FROM t") == [(1, "Ann", 2)]


@pytest.mark.parametrize(
    ("field", "good", "stored", "wrong"),
    [
        ({"type": "integer"}, "+007", 7, "1.0"),
        ({"type": "integer", "groupChar": "."}, "1.234", 1234, "x"),
        ({"type": "integer", "bareNumber": False}, "EUR 12 %", 12, "EUR"),
        ({"type": "number"}, ".5e1", 5.0, "12345678901234567.89"),
        ({"type": "number", "decimalChar": ",", "groupChar": "."}, "1.234,5", 1234.5, "1,2,3"),
        ({"type": "number", "decimalChar": ","}, "1,5", 1.5, "1.5"),
        ({"type": "number", "decimalChar": ",", "groupChar": "."}, "12.345.678,5", 12345678.5, "3.9"),
        ({"type": "number", "groupChar": ","}, "1,00,000", 100000.0, "1,5"),
        ({"type": "number", "decimalChar": ",", "groupChar": "."}, "-1.234", -1234.0, "0.123"),
        *(
            ({"type": "number", "bareNumber": False}, good, stored, wrong)
            for good, stored, wrong in (
                ("5 m²", 5.0, "5-"),
                ("$-5", -5.0, "(5)"),
                ("5 €", 5.0, "\u22125"),
                ("5%", 5.0, "5½"),
                ("US$ 5", 5.0, "5万"),
            )
        ),
        ({"type": "boolean"}, "TRUE", 1, "yes"),
        ({"type": "boolean", "trueValues": ["ja"], "falseValues": ["nein"]}, "nein", 0, "true"),
        ({"type": "date"}, "2024-02-29", "2024-02-29", "2023-02-29"),
        ({"type": "date", "format": "%d/%m/%y"}, "01/02/24", "2024-02-01", "31/02/24"),
        ({"type": "datetime"}, "2024-02-29T10:00:00", "2024-02-29 10:00:00.000000", "2024-02-29T25:00:00"),
        ({"type": "datetime", "format": "%d.%m.%Y %H:%M"}, "1.2.2024 9:05", "2024-02-01 09:05:00.000000", "1.2.2024"),
        ({"type": "time"}, "10:00:00", "10:00:00.000000", "10:00:60"),
        ({"type": "year"}, "2024", 2024, "24"),
        ({"type": "object"}, '{"a": 1}', '{"a": 1}', "[1]"),
        ({"type": "array"}, "[1.5]", "[1.5]", "[1"),
        ({"type": "array"}, "[null]", "[null]", "[NaN]"),
        ({"type": "string", "format": "email"}, "a@b.c", "a@b.c", "a b"),
        ({"type": "string"}, "007", "007", None),
        ({"type": "string", "constraints": {"minLength": 2, "maxLength": 3}}, "äöü", "äöü", "ä"),
        ({"type": "string", "constraints": {"pattern": "a+"}}, "aa", "aa", "aab"),
        ({"type": "date", "constraints": {"minimum": "2024-01-01"}}, "2024-01-01", "2024-01-01", "2023-12-31"),
        ({"type": "integer", "constraints": {"enum": [1, 2]}}, "2", 2, "3"),
        ({"type": "integer", "constraints": {"exclusiveMaximum": 5}}, "4", 4, "5"),
    ],
)
def test_each_type_of_a_contract(  # noqa: PLR0917 - pytest hands fixtures in by position
    written: Any, database: Path, field: dict[str, Any], good: str, stored: Any, wrong: str | None
) -> None:
    said = {"dialect": {"delimiter": "|"}, "schema": {"fields": [{"name": "x", **field}, {"name": "n"}]}}
    quoted = '"' + good.replace('"', '""') + '"'
    load(written("good.csv", f"x|n\n{quoted}|1\n|2\n"), database, contract=said)
    assert query(database, "SELECT x FROM t") == [(stored,), (None,)]
    if wrong is not None:
        message = refusal(written("bad.csv", f"x|n\n{wrong}|1\n{quoted}|2\n"), database, contract=said)
        assert message.startswith(f"bad.csv, line 2, column 'x': {wrong!r} ")


def test_times_with_an_offset_are_moments(written: Any, database: Path) -> None:
    said = {"schema": {"fields": [{"name": "at", "type": "datetime"}, {"name": "n"}]}}
    load(written("x.csv", "at,n\n2024-02-29T10:00:00+02:00,1\n"), database, contract=said)
    assert query(database, "SELECT at FROM t") == [("2024-02-29 08:00:00.000000Z",)]
    assert "line 3" in refusal(
        written("y.csv", "at,n\n2024-02-29T10:00:00Z,1\n2024-02-29T10:00:00,2\n"), database, contract=said
    )
    load(written("z.csv", "at,n\n2024-02-29T10:00:00-02:00,1\n"), database, contract=said)
    assert query(database, "SELECT at FROM t")[1:] == [("2024-02-29 12:00:00.000000Z",)]
    message = refusal(written("w.csv", "at,n\n2024-02-29T10:00:00,1\n"), database, contract=said)
    assert "is not a time like 2026-12-31T23:59:59+01:00, as that column of the table is" in message
