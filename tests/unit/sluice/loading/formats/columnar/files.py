"""Tables as files of each columnar format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest


def parquet(path: Path, content: pa.Table) -> None:
    pq.write_table(content, path)


def arrow_file(path: Path, content: pa.Table) -> None:
    with pa.ipc.new_file(path, content.schema) as writer:
        writer.write_table(content)


def arrow_stream(path: Path, content: pa.Table) -> None:
    with pa.ipc.new_stream(path, content.schema) as writer:
        writer.write_table(content)


def feather(path: Path, content: pa.Table) -> None:
    pyarrow.feather.write_feather(content, path, compression="lz4")


def packed_arrow(path: Path, content: pa.Table) -> None:
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(path, content.schema, options=options) as writer:
        writer.write_table(content)


WRITE: dict[str, Callable[[Path, pa.Table], None]] = {
    "x.parquet": parquet,
    "x.arrow": arrow_file,
    "x.arrows": arrow_stream,
    "x.feather": feather,
    "x.ipc": packed_arrow,
}
EVERY_FORMAT = pytest.mark.parametrize("name", WRITE)
