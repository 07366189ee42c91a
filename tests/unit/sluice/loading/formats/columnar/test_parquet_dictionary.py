"""The longest text of a dictionary is known before it stands in its places."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sluice.budgets import Budget
from sluice.loading.formats.columnar.parquet_dictionary import longest_in_dictionary
from sluice.loading.formats.columnar.parquet_index import row_groups
from sluice.loading.reading.source import members
from tests.unit.sluice.loading.readings import table


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "brotli", "lz4"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_the_longest_text_of_a_dictionary_is_known_before_it_is_put_in_its_places(
    tmp_path: Path, compression: str, version: str
) -> None:
    path = tmp_path / "x.parquet"
    texts = [f"text {number}" for number in range(1000)] + ["x" * 70_000] * 300
    content = pa.table({"dictionary": texts, "plain": [f"{number}" * 9 for number in range(1300)]})
    pq.write_table(content, path, compression=compression, data_page_version=version, use_dictionary=["dictionary"])
    with path.open("rb") as file:
        (member,) = members(file, path.name, Budget())
        with member.open_seekable() as stream:
            (group,) = row_groups(stream, 2, "x")
            assert [longest_in_dictionary(stream, chunk, member) for chunk in group.chunks] == [70_000, 0]
    assert table(path, expansion_ratio=10_000).equals(content)
