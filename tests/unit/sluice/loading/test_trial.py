"""What would become of a file, found out without loading it."""

from __future__ import annotations

from pathlib import Path

from sluice.loading import load_file
from sluice.loading.contracts.contract import parse_contract
from sluice.loading.trial import try_file


def test_a_trial_says_what_would_happen_and_loads_nothing(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'data.db'}"
    path = tmp_path / "x.csv"
    path.write_text("id,n\n1,2\n2,x\n")
    first = try_file(path, database)
    assert (first.outcome, first.would_load, first.rows) == ("2 rows are loaded into the table x", True, 2)
    assert not (tmp_path / "data.db").exists()
    fields = [{"name": "id", "type": "integer"}, {"name": "n", "type": "integer"}]
    refused = try_file(path, database, contract=parse_contract({"schema": {"fields": fields}}))
    assert (refused.outcome, refused.would_load) == ("refused: 1 of 2 rows is bad", False)
    assert refused.bad.examples[0]["place"] == "x.csv, line 3"
    aside = {"schema": {"fields": fields}, "sluice": {"on_bad_rows": "quarantine"}}
    assert try_file(path, database, contract=parse_contract(aside)).outcome == (
        "1 row is loaded into the table x, and 1 bad row is put aside"
    )
    unique = {"name": "id", "type": "integer", "constraints": {"unique": True}}
    once = {"fields": [unique, {"name": "n"}]}
    assert "primaryKey" in try_file(path, database, contract=parse_contract({"schema": once})).notes[0]
    assert not try_file(path, database, contract=parse_contract({"schema": {**once, "primaryKey": "id"}})).notes
    waits = {"schema": {"fields": fields}, "sluice": {"on_bad_rows": "approve"}}
    assert try_file(path, database, contract=parse_contract(waits)).outcome.startswith("waits for an approval")
    load_file(path, database, flow="ingest-file")
    assert try_file(path, database).outcome == "2 rows are loaded into the table x (which is there)"
    path.write_text("id,n\n1.5,y\n")
    assert try_file(path, database).outcome.startswith("refused: the column 'id' holds double")
