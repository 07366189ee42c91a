"""Loading a file into a SQLite database of the test, and what is then in it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from sluice.loading import load_file
from sluice.loading.contracts.contract import parse_contract
from sluice.loading.errors import RefusedFile
from sluice.loading.reporting.report import LoadReport


def load(path: Path, database: Path, table: str | None = "t", contract: Any = None, **options: Any) -> LoadReport:
    found = parse_contract(contract) if contract is not None else None
    return load_file(path, f"sqlite:///{database}", table=table, contract=found, **options)


def query(database: Path, sql: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(database)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def tables(database: Path) -> set[str]:
    found = {name for (name,) in query(database, "SELECT name FROM sqlite_master WHERE type = 'table'")}
    return found - {"sluice_loads", "sluice_tables"}


def refusal(path: Path, database: Path, *arguments: Any, **options: Any) -> str:
    with pytest.raises(RefusedFile) as caught:
        load(path, database, *arguments, **options)
    return str(caught.value)
