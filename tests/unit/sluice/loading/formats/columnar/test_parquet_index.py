"""The index of a Parquet file, which may be damaged in any way."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sluice.loading.errors import RefusedFile
from sluice.loading.formats.columnar.parquet_index import row_groups, thrift_struct

_READ_EACH_CHANGED = """
import sys
from pathlib import Path
from sluice.budgets import Budget
from sluice.loading.errors import RefusedFile
from sluice.errors import OverBudget
from sluice.loading.formats import read
from sluice.loading.reading.source import members

path = Path(sys.argv[1])
whole = path.read_bytes()
for place in range(len(whole) - 8 - int.from_bytes(whole[-8:-4], "little"), len(whole)):
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 32]) + whole[place + 1:])
    with path.open("rb") as file:
        try:
            for batch in read(*members(file, path.name, Budget())).batches():
                batch.rows.to_pylist()
        except (RefusedFile, OverBudget):
            pass
print("read")
"""


def test_no_index_of_a_parquet_file_ends_the_process(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [1], "s": ["x"]}), tmp_path / "x.parquet", store_schema=False)
    command = [sys.executable, "-c", _READ_EACH_CHANGED, str(tmp_path / "x.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "read\n"), done.stderr


def test_the_index_is_read_as_arrow_reads_it(tmp_path: Path) -> None:
    columns = {f"c{number}": pa.array([[number, None]] * 60) for number in range(20)} | {
        "b": [True] * 60,
        "t": ["x"] * 60,
    }
    pq.write_table(
        pa.table(columns), tmp_path / "x.parquet", row_group_size=3, write_page_index=True, compression="zstd"
    )
    index = pq.ParquetFile(tmp_path / "x.parquet").metadata
    with (tmp_path / "x.parquet").open("rb") as stream:
        found = row_groups(stream, 22, "x")
    for number, group in enumerate(found):
        there = index.row_group(number)
        assert (group.rows, group.unpacked) == (there.num_rows, there.total_byte_size)
        for place, chunk in enumerate(group.chunks):
            one = there.column(place)
            assert (chunk.values, chunk.packed, chunk.unpacked) == (
                one.num_values, one.total_compressed_size, one.total_uncompressed_size
            )  # fmt: skip
    assert (len(found), found[0].chunks[0].codec) == (20, 6)


def test_a_struct_is_read_field_by_field() -> None:
    # field 1: the integer -3; field 2: true; field 5: a text; field 6: a list of two integers; field 7: a struct
    data = bytes([0x15, 0x05, 0x11, 0x38, 0x02]) + b"ab" + bytes([0x19, 0x25, 0x02, 0x04, 0x1C, 0x15, 0x0E, 0x00, 0x00])
    assert thrift_struct(data, 0) == ({1: -3, 2: True, 5: b"ab", 6: [1, 2], 7: {1: 7}}, len(data))
    assert thrift_struct(b"xx\0", 2) == ({}, 3)


@pytest.mark.parametrize("data", [b"", b"\x15", b"\x15\xff", b"\x1d\x00", b"\x19\xf5", b"\x1c" * 5000])
def test_what_is_no_struct_is_an_error(data: bytes) -> None:
    with pytest.raises((KeyError, IndexError, RecursionError)):
        thrift_struct(data, 0)


@pytest.mark.parametrize(("columns", "said"), [(1, "names other columns"), (3, "names other columns")])
def test_an_index_for_other_columns_is_refused(tmp_path: Path, columns: int, said: str) -> None:
    pq.write_table(pa.table({"n": [1], "s": ["x"]}), tmp_path / "x.parquet")
    with (tmp_path / "x.parquet").open("rb") as stream, pytest.raises(RefusedFile, match=said):
        row_groups(stream, columns, "x")
