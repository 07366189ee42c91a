"""Parquet files are read a few rows at a time."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from sluice.budgets import Budget
from sluice.loading.formats import read
from sluice.loading.reading.source import members
from tests.unit.sluice.loading.formats.columnar.files import parquet
from tests.unit.sluice.loading.readings import refusal


def test_few_rows_are_read_at_once_where_a_dictionary_holds_a_long_text(tmp_path: Path) -> None:
    parquet(tmp_path / "x.parquet", pa.table({"s": ["x" * 1_000_000] * 200}))
    with (tmp_path / "x.parquet").open("rb") as file:
        (member,) = members(file, "x.parquet", Budget(expansion_ratio=10**6))
        sizes = [batch.rows.num_rows for batch in read(member).batches()]
    assert (max(sizes), sum(sizes)) == (16, 200)
    assert "line_bytes" in refusal(tmp_path / "x.parquet", line_bytes=900_000)
