"""First contracts, made of a file: what holds for all of its rows, and that the file keeps to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sluice.loading import AmbiguousFile
from sluice.loading.contracts.contract import Contract, parse_contract
from sluice.loading.drafting import pattern_of
from sluice.loading.trial import draft_for, try_file


def drafted(path: Path, said: dict[str, Any] | None = None) -> dict[str, Any]:
    found = draft_for(path, parse_contract(said or {}))
    contract = Contract.model_validate(found)
    assert not list(contract.problems())
    assert try_file(path, None, contract=contract).bad.count == 0
    return found


def test_a_contract_says_what_holds_for_every_row(tmp_path: Path) -> None:
    path = tmp_path / "orders-2026-03.csv"
    path.write_text(
        "id;code;amount;day;paid;kind;note\n"
        "1;007;1,50;31.12.2025;true;new;\n"
        "2;012;NULL;01.02.2026;false;old;x\n"
        "3;100;1.234,00;13.02.2026;true;new;y\n"
        "4;101;-3,1;13.02.2026;;old;NULL\n"
    )
    assert drafted(path) == {
        "path": "orders-*.csv",
        "dialect": {"delimiter": ";"},
        "schema": {
            "fields": [
                {"name": "id", "type": "integer", "constraints": {"required": True}},
                {"name": "code", "type": "string", "constraints": {"required": True}},
                {"name": "amount", "type": "number", "decimalChar": ",", "groupChar": "."},
                {"name": "day", "type": "date", "format": "%d.%m.%Y", "constraints": {"required": True}},
                {
                    "name": "paid",
                    "type": "boolean",
                    "trueValues": ["true", "True", "TRUE"],
                    "falseValues": ["false", "False", "FALSE"],
                },
                {"name": "kind", "type": "string", "constraints": {"required": True, "enum": ["new", "old"]}},
                {"name": "note", "type": "string"},
            ],
            "missingValues": ["", "NULL"],
            "primaryKey": "id",
        },
        "sluice": {"table": "orders", "mode": "append", "on_bad_rows": "refuse"},
    }


@pytest.mark.parametrize(
    ("values", "field"),
    [
        (["01/02/2026", "03/04/2026"], {"type": "string", "description": "date: the format is %d/%m/%Y or %m/%d/%Y"}),
        (["01/02/2026", "13/04/2026"], {"type": "date", "format": "%d/%m/%Y"}),
        (
            ["1,234", "5,678"],
            {"type": "string", "description": "number: the comma is the decimalChar or the groupChar"},
        ),
        (["1,2", "5,678"], {"type": "number", "decimalChar": ","}),
        (["3.9", "3.10"], {"type": "string"}),
        (["2026-01-01 10:00", "2026-01-01 11:00"], {"type": "datetime"}),
        (["x", "y"], {"type": "string"}),
        (["-", "7"], {"type": "integer"}),
    ],
)
def test_what_has_two_readings_is_text_with_a_remark(tmp_path: Path, values: list[str], field: dict[str, Any]) -> None:
    path = tmp_path / "x.csv"
    path.write_text("n|v\n" + "".join(f"{n}|{value}\n" for n, value in enumerate(values)))
    found = drafted(path)["schema"]["fields"][1]
    assert {name: value for name, value in found.items() if name not in {"name", "constraints"}} == field


def test_a_file_with_two_readings_needs_to_be_told(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("Price, EUR;Qty\n1,50;2\n")
    with pytest.raises(AmbiguousFile):
        drafted(path)
    assert drafted(path, {"dialect": {"delimiter": ";"}})["dialect"] == {"delimiter": ";"}


def test_types_of_other_formats_are_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"n": [1, 2], "r": [1.5, None], "s": ["a", "b"], "b": [True, False]}), path)
    fields = drafted(path)["schema"]["fields"]
    assert [(one["name"], one["type"]) for one in fields] == [
        ("n", "integer"),
        ("r", "number"),
        ("s", "string"),
        ("b", "boolean"),
    ]


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("orders-2026-03-01.csv.gz", "orders-*.csv"),
        ("orders.csv", "orders.csv"),
        ("20260301_orders.jsonl", "*_orders.jsonl"),
        ("a[1].csv", "a[[]*].csv"),
        ("x~2.csv", "x.csv"),
    ],
)
def test_the_path_is_for_the_files_that_follow(name: str, pattern: str) -> None:
    assert pattern_of(name) == pattern
