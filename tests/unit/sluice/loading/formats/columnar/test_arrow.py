"""Arrow and Feather files: old ones and damaged ones are refused in a sentence."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pyarrow as pa
import pytest

from sluice.budgets import Budget
from sluice.errors import OverBudget
from sluice.loading.errors import RefusedFile
from sluice.loading.formats import read
from sluice.loading.reading.source import members
from tests.unit.sluice.loading.formats.columnar.files import WRITE
from tests.unit.sluice.loading.readings import refusal, written


def test_a_feather_file_of_the_first_version_is_refused(tmp_path: Path) -> None:
    assert "version 1" in refusal(written(tmp_path, "x.feather", b"FEA1" + bytes(100)))


@pytest.mark.parametrize("name", [name for name in WRITE if name != "x.parquet"])
def test_no_changed_byte_of_a_file_is_told_in_other_words_than_a_refusal(tmp_path: Path, name: str) -> None:
    content = pa.table({"a": range(50), "s": [f"text {number % 7}" for number in range(50)], "l": [[1, None]] * 50})
    WRITE[name](tmp_path / name, content)
    whole = (tmp_path / name).read_bytes()
    for place in range(0, len(whole), 7):
        changed = written(tmp_path, name, whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with contextlib.suppress(RefusedFile, OverBudget), changed.open("rb") as file:
            (member,) = members(file, name, Budget())
            for batch in read(member).batches():
                batch.rows.to_pylist()
