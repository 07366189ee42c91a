"""`sluice contract`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from services.cli import app


@pytest.fixture
def sluice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "sluice.yaml").write_text("sources: {}\nrules: []\n")
    monkeypatch.setenv("SLUICE_CONFIG", str(tmp_path / "sluice.yaml"))
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SLUICE_DATABASE_URL", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(app, list(arguments))
        return result.exit_code, result.stdout, result.stderr

    return run


def test_what_is_inferred_can_be_put_into_the_folder_and_is_held(sluice: Any, tmp_path: Path) -> None:
    path = tmp_path / "orders-1.csv"
    path.write_text("id;day\n1;31.12.2025\n2;01.01.2026\n")
    code, printed, _ = sluice("contract", "infer", str(path))
    assert code == 0
    assert yaml.safe_load(printed)["dialect"] == {"delimiter": ";"}
    (tmp_path / "contracts").mkdir()
    (tmp_path / "contracts" / "orders.yaml").write_text(printed)
    code, printed, _ = sluice("contract", "test", str(path), "--json")
    found = json.loads(printed)
    assert (code, found["rows"], found["table"], found["would_load"]) == (0, 2, "orders", True)
    path.write_text("id;day\n1;2025-12-31\n")
    code, printed, _ = sluice("contract", "test", str(path))
    assert code == 1
    assert "orders-1.csv: refused: 1 of 1 row is bad" in printed
    assert "2025-12-31" in printed
    assert not (tmp_path / "home").exists()


def test_what_is_not_to_be_seen_in_the_file_is_told(sluice: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes("Name, Vorname;Ort\nMüller, Ada;Köln\n".encode("cp1252"))
    code, _, said = sluice("contract", "infer", str(path))
    assert code == 1
    assert "is not UTF-8" in said
    code, printed, told = sluice("contract", "infer", str(path), "--json")
    assert (code, printed, json.loads(told)["code"]) == (1, "", "refused")
    code, printed, _ = sluice("contract", "infer", str(path), "--encoding", "cp1252", "--delimiter", ";")
    assert code == 0
    assert yaml.safe_load(printed)["encoding"] == "cp1252"
    (tmp_path / "c.yaml").write_text(printed)
    code, printed, _ = sluice("contract", "test", str(path), "--contract", str(tmp_path / "c.yaml"))
    assert code == 0
    assert "1 row is loaded into the table x" in printed


def test_a_broken_project_is_misuse(sluice: Any, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\nx,1\n")
    (tmp_path / "sluice.yaml").write_text("rulez: []\n")
    code, _, said = sluice("contract", "test", str(tmp_path / "x.csv"))
    assert code == 2
    assert "rulez" in said
