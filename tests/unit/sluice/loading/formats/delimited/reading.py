"""Reading a delimited text that a test wrote."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import pytest

from sluice.budgets import Budget
from sluice.loading.contracts.contract import parse_contract
from sluice.loading.errors import RefusedFile
from sluice.loading.formats import read
from sluice.loading.reading.batch import Reading
from sluice.loading.reading.source import members


def reading(path: Path, contract: dict[str, Any] | None = None, budget: Budget | None = None) -> Reading:
    file = path.open("rb")
    OPEN.append(file)
    (member,) = members(file, path.name, budget or Budget())
    return read(member, parse_contract(contract) if contract else None)


OPEN: list[IO[bytes]] = []


def table(path: Path, contract: dict[str, Any] | None = None) -> tuple[list[str], list[tuple[Any, ...]]]:
    found = reading(path, contract)
    rows: list[tuple[Any, ...]] = []
    for batch in found.batches():
        assert not batch.bad
        rows += zip(*(column.to_pylist() for column in batch.rows.columns), strict=True)
    return found.columns, rows


def bad(path: Path, contract: dict[str, Any] | None = None) -> list[tuple[int, str]]:
    return [(one.line, one.reason) for batch in reading(path, contract).batches() for one in batch.bad]


def refusal(path: Path, contract: dict[str, Any] | None = None, kind: type[Exception] = RefusedFile) -> str:
    with pytest.raises(kind) as caught:
        table(path, contract)
    return str(caught.value)
