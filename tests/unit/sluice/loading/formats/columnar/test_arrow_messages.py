"""How large the record batches of an Arrow file become is known before they are unpacked."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from tests.unit.sluice.loading.formats.columnar.files import WRITE
from tests.unit.sluice.loading.readings import refusal, table, written


@pytest.mark.parametrize("name", ["x.arrow", "x.arrows", "x.ipc", "x.feather"])
def test_a_record_batch_is_not_unpacked_when_it_is_too_large(tmp_path: Path, name: str) -> None:
    WRITE[name](tmp_path / name, pa.table({"a": [0] * 250_000}))
    assert "block_bytes = 400000" in refusal(tmp_path / name, block_bytes=400_000)
    assert table(tmp_path / name, block_bytes=2_100_000).num_rows == 250_000


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"ARROW1\0\0" + b"\0" * 16, "no Arrow file, or one from before Arrow 0.15"),
        (b"\xff\xff\xff\xff\xff\xff\xff\x7f", "before its values"),
        (b"\xff\xff\xff\xff\x10\0\0\0abc", "it ends too early"),
        (b"\xff\xff", "no readable Arrow file"),
    ],
)
def test_what_is_no_stream_of_messages_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    assert said in refusal(written(tmp_path, "x.arrow", content), line_bytes=1000)


def test_a_stream_may_be_padded_with_zeros(tmp_path: Path) -> None:
    WRITE["x.arrows"](tmp_path / "x.arrows", pa.table({"a": [1, 2]}))
    padded = written(tmp_path, "x.arrows", (tmp_path / "x.arrows").read_bytes() + bytes(100))
    assert table(padded).num_rows == 2
