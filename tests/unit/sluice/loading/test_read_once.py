"""A file whose contract says all types is loaded while it is read for the first time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.sluice.loading.loaded import load, refusal, tables

TYPED = {
    "schema": {"fields": [{"name": "id", "type": "integer"}, {"name": "name", "type": "string"}], "primaryKey": "id"}
}


def test_a_file_whose_types_a_contract_names_is_read_once(
    written: Any, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sluice.loading.load.inspect", None)
    told: list[float] = []
    path = written("x.csv", "id,name\n" + "".join(f"{n},a\n" for n in range(50_000)))
    report = load(path, database, contract=TYPED, progress=lambda share, _: told.append(share))
    assert report.rows == 50_000
    assert report.made
    assert report.columns[1]["top"] == {"a": 50_000}
    assert told == sorted(told)
    assert told[-1] == 1.0


@pytest.mark.parametrize(("offset", "type_"), [("", "timestamp[us]"), ("+02:00", "timestamp[us, tz=UTC]")])
def test_the_first_rows_say_whether_times_are_moments_and_the_file_is_read_once(
    written: Any, database: Path, monkeypatch: pytest.MonkeyPatch, offset: str, type_: str
) -> None:
    contract = {"schema": {"fields": [{"name": "at", "type": "datetime"}, {"name": "n", "type": "integer"}]}}
    assert load(written("none.csv", "at,n\n,1\n"), database, "none", contract=contract).rows == 1  # no time says it
    monkeypatch.setattr("sluice.loading.load.inspect", None)
    rows = f",0\n2024-05-06T09:08:09{offset},1\n" * 3
    report = load(written("x.csv", f"at,n\n{rows}"), database, contract=contract)
    assert (report.rows, report.columns[0]["type"], report.columns[0]["empty"]) == (6, type_, 3)
    other = "" if offset else "Z"
    message = refusal(written("z.csv", f"at,n\n{rows}2024-05-06T09:08:09{other},1\n"), database, contract=contract)
    assert "z.csv, line 8, column 'at'" in message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            "id,name\n1,a\nx,b\n3,c\ny,d\n",
            "x.csv, line 3, column 'id': 'x' is not an integer of 64 bits (and 1 more of 4 rows)",
        ),
        ("id,name\n1,a\n2,b\n1,c\n", "x.csv, line 4: an earlier row has the same key (id)"),
        ("id,name\n1,a\n,b\n", "x.csv, line 3, column 'id': is empty, and the contract requires a value"),
    ],
)
def test_nothing_stays_of_a_file_that_turns_out_bad_while_it_is_loaded(
    written: Any, database: Path, content: str, said: str
) -> None:
    assert refusal(written("x.csv", content), database, contract=TYPED) == said
    assert tables(database) == set()
