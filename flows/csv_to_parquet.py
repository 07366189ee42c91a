"""Turn a CSV file of any size into Parquet, a piece at a time, with its progress on the run's page.

Values stay text exactly as they are written; memory does not grow with the file.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, cast
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
from prefect import State, flow, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from sluice import Budget, open_file, run_name, visible
from sluice.files import directory_of
from sluice.loading.formats import read
from sluice.loading.reading.source import ENDINGS, members

DEPLOYMENT: Final = {"memory_mb": 1024, "time_seconds": 1800}

BUDGET: Final = Budget(unpacked_bytes=64 * 1024**3)
"""Only pieces are in memory, so that the file itself may be large."""
SECONDS_BETWEEN_UPDATES: Final = 1.0


class ConversionProgress:
    """A progress bar on the run's page, updated at most once a second."""

    def __init__(self, description: str) -> None:
        self._artifact = cast("UUID", create_progress_artifact(0.0, description=visible(description)))
        self._told = time.monotonic()

    def reached(self, share: float) -> None:
        """``share`` (0 to 1) is done; the whole is always told."""
        now = time.monotonic()
        if share >= 1 or now - self._told >= SECONDS_BETWEEN_UPDATES:
            self._told = now
            update_progress_artifact(self._artifact, progress=100 * min(share, 1.0))


def pieces(path: Path) -> Iterator[tuple[float, pa.RecordBatch]]:
    """The file's rows as text, a piece at a time, each with the share of the file that is read by then.

    Raises `ValueError` (of `sluice`) for a file that may not be read, costs too much, changes while it is read, or has
    a row that is not like its header.
    """
    with open_file(path) as raw:
        found = list(members(raw, path.name, BUDGET))
        if len(found) > 1:
            raise ValueError(f"{visible(path.name)} holds {len(found)} files: convert them one by one")
        (member,) = found
        reading = read(member)
        schema = pa.schema([(name, pa.string()) for name in reading.columns])
        for batch in reading.batches():
            if batch.bad:
                raise ValueError(f"{member.label}, line {batch.bad[0].line}: {batch.bad[0].reason}")
            columns = [column.cast(pa.string()) for column in batch.rows.columns]
            yield member.share_read, pa.RecordBatch.from_arrays(columns, schema=schema)


@task(cache_policy=NO_CACHE)
def convert(source: Path, target: Path) -> int:
    """Write ``target``, which appears only when it is complete; answers the number of rows."""
    progress = ConversionProgress(f"{source.name} to Parquet")
    draft = f".{target.name[:200]}.{secrets.token_hex(4)}.part"
    writer: Any = None
    rows = 0
    directory = directory_of(target)  # entered once: what others put in its place meanwhile leads nowhere
    try:
        made = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=directory)
        with os.fdopen(made, "wb") as file:
            for share, batch in pieces(source):
                writer = writer or pq.ParquetWriter(file, batch.schema, compression="zstd")
                writer.write_batch(batch)
                rows += batch.num_rows
                progress.reached(share)
            if writer is None:
                raise ValueError(f"{visible(source.name)} has no rows")
            writer.close()
        os.replace(draft, target.name, src_dir_fd=directory, dst_dir_fd=directory)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft, dir_fd=directory)
        os.close(directory)
    progress.reached(1)
    return rows


@flow(name="csv-to-parquet", flow_run_name=run_name("convert {path}"))
def csv_to_parquet(path: str, target: str | None = None) -> State[dict[str, Any]]:
    """Convert the CSV file at ``path``, packed or not; ``target`` is by default its name with .parquet beside it.

    An empty field becomes null. Needs a file in a watched folder, or in one of the deployment's ``folders``.
    """
    source = Path(path)
    plain = source.with_suffix("") if source.suffix.lower() in ENDINGS else source
    written = Path(target) if target else plain.with_suffix(".parquet")
    rows = convert(source, written)
    summary = {"file": str(written), "rows": rows, "bytes": written.stat().st_size}
    return Completed(message=visible(f"{rows} rows of {source.name} are in {written.name}"), data=summary)
