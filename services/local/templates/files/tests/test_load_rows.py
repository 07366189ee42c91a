"""Run with pytest, in the project's folder: the flow's work, without Prefect."""

import sqlite3
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "flows"))

from load_rows import load_rows


def test_the_rows_of_a_file_are_in_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_DATABASE_URL", f"sqlite:///{tmp_path / 'data.db'}")
    file = tmp_path / "cities.csv"
    file.write_text("city,people\nOslo,700000\nRome,2800000\n", encoding="utf-8")
    load_rows.fn(str(file))
    with sqlite3.connect(tmp_path / "data.db") as database:
        assert database.execute("SELECT count(*) FROM cities").fetchone() == (2,)
