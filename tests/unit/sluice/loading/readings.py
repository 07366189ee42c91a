"""Reading a file that a test wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sluice.budgets import Budget
from sluice.errors import OverBudget
from sluice.loading.contracts.contract import Contract, parse_contract
from sluice.loading.errors import RefusedFile
from sluice.loading.formats import read
from sluice.loading.reading.batch import Reading
from sluice.loading.reading.source import members


def written(directory: Path, name: str, content: bytes | str) -> Path:
    path = directory / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def table(path: Path, contract: dict[str, Any] | None = None, **budget: int) -> pa.Table:
    """All rows of the only member; read twice, since loading does so, and the same both times."""
    return seen(path, contract, **budget)[0]


def rows(path: Path, contract: dict[str, Any] | None = None, **budget: int) -> list[dict[str, Any]]:
    return table(path, contract, **budget).to_pylist()


def seen(path: Path, contract: dict[str, Any] | None = None, **budget: int) -> tuple[pa.Table, list[int], Reading]:
    """The rows, the lines that they begin at, and how they were read."""
    with path.open("rb") as file:
        (member,) = members(file, str(path), Budget(**budget))
        reading = read(member, contract_of(contract))
        schema = pa.schema([(name, pa.string()) for name in reading.columns])
        first, again = (list(reading.batches()) for _ in range(2))
        tables = [
            pa.Table.from_batches([one.rows for one in many], None if many else schema) for many in (first, again)
        ]
        assert tables[0].equals(tables[1]) or str(tables[0].to_pylist()) == str(tables[1].to_pylist())  # NaN
        assert tables[0].column_names == reading.columns
        lines: list[int] = []
        for batch in first:
            found = (
                batch.lines().to_pylist() if batch.lines else range(len(lines) + 1, len(lines) + 1 + len(batch.rows))
            )
            lines += found
        return tables[0], lines, reading


def contract_of(contract: dict[str, Any] | None) -> Contract | None:
    return None if contract is None else parse_contract(contract)


def refusal(path: Path, contract: dict[str, Any] | None = None, **budget: int) -> str:
    with pytest.raises((RefusedFile, OverBudget)) as caught:
        seen(path, contract, **budget)
    assert path.name in str(caught.value)
    return str(caught.value)
