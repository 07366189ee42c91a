"""Which contract a file is held against."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sluice.loading.contracts.contract_files import contract_for, fits, project_contracts
from sluice.loading.errors import RefusedFile


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("orders-*.csv", "orders-1.csv"),
        ("orders-*.csv", "ORDERS-1.CSV"),
        ("orders-*.csv", "orders-1.csv.gz"),
        ("orders-*.csv.gz", "orders-1.csv.gz"),
        ("orders-*.csv", "orders-1.csv.rejected.csv"),
        ("orders-*.csv", "orders-1.csv.0123abcd.rejected.csv"),
        ("orders-*.xlsx", "orders-1.xlsx.rejected.csv"),
        ("café.csv", "cafe\u0301.csv"),
        ("orders.zip", "orders.zip"),
    ],
)
def test_a_contract_is_for_the_files_of_its_path(pattern: str, name: str) -> None:
    assert fits(pattern, name)


@pytest.mark.parametrize(("pattern", "name"), [("orders-*.csv", "orders.csv"), ("*.csv", "x.csv.bak")])
def test_and_for_no_others(pattern: str, name: str) -> None:
    assert not fits(pattern, name)


def test_the_one_that_fits_is_taken_from_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "contracts").mkdir()
    (tmp_path / "contracts" / "a.yaml").write_text("path: a*.csv\nsluice: {table: a}\n")
    (tmp_path / "contracts" / "b.yml").write_text("path: b*.csv\nsluice: {table: b}\nnothing: {}\n")
    (tmp_path / "contracts" / "notes.txt").write_text("none\n")
    project = tmp_path / "sluice.yaml"
    project.write_text("sources: {}\ncontracts:\n  - path: c*.csv\n    sluice: {table: c}\n  - path: ca*.csv\n")
    sources = [project, tmp_path / "contracts", tmp_path / "gone"]
    found = contract_for("/x/a1.csv", sources)
    assert found is not None
    assert found.sluice.table == "a"
    assert contract_for("/x/d.csv", sources) is None
    with pytest.raises(RefusedFile, match=r"b\.yml:3 cannot be used: nothing: Extra"):
        contract_for("/x/b1.csv", sources)
    with pytest.raises(RefusedFile, match=r"sluice\.yaml:3 and .*sluice\.yaml:5: change the `path` of all but one"):
        contract_for("/x/ca1.csv", sources)


def test_a_project_without_contracts_has_none(tmp_path: Path) -> None:
    (tmp_path / "sluice.yaml").write_text("sources: {}\nrules: []\n")
    assert contract_for("x.csv", [tmp_path / "sluice.yaml"]) is None


def test_a_project_file_that_cannot_be_read_refuses_the_file_since_it_may_say_what_is_to_be_masked(
    tmp_path: Path,
) -> None:
    with pytest.raises(RefusedFile, match="there is no such file"):
        contract_for("x.csv", [tmp_path / "sluice.yaml"])
    (tmp_path / "sluice.yaml").write_text("a: [")
    with pytest.raises(RefusedFile, match="this is not YAML"):
        contract_for("x.csv", [tmp_path / "sluice.yaml"])


def test_the_environment_of_a_run_says_where_contracts_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert project_contracts() == []
    monkeypatch.setenv("SLUICE_CONTRACTS", json.dumps(["/a.yaml", "/contracts"]))
    assert project_contracts() == [Path("/a.yaml"), Path("/contracts")]
    monkeypatch.setenv("SLUICE_CONTRACTS", "{}")
    with pytest.raises(RefusedFile, match="is not a JSON list"):
        project_contracts()
