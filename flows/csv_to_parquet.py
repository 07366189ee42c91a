"""Turn a CSV file of any size into Parquet, a piece at a time, with its progress on the run's page.

Values stay text exactly as they are written; memory does not grow with the file.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final, cast
from uuid import UUID

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from prefect import State, flow, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from sluice import Budget, OpenedFile, open_file, visible
from sluice.budgets import unpacked

DEPLOYMENT: Final = {"memory_mb": 1024, "time_seconds": 1800}

BUDGET: Final = Budget(unpacked_bytes=64 * 1024**3)
"""Only pieces are in memory, so that the file itself may be large."""
PIECE_BYTES: Final = 8 * 1024 * 1024
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

    Raises `ValueError` (of `sluice`) for a file that may not be read, costs too much, or changes while it is read.
    """
    with open_file(path) as raw:
        names = pa.csv.open_csv(_unpacked(raw, path)).schema.names
        BUDGET.check("columns", len(names), f"{path.name} has {len(names)} columns")
        version = raw.version
    with open_file(path, version=version) as raw:
        reader = pa.csv.open_csv(
            _unpacked(raw, path),
            read_options=pa.csv.ReadOptions(block_size=PIECE_BYTES),
            parse_options=pa.csv.ParseOptions(newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
        )
        for batch in reader:
            yield raw.tell() / (raw.size or 1), batch


def _unpacked(raw: OpenedFile, path: Path) -> IO[bytes]:
    return unpacked(raw, BUDGET, size=raw.size, compressed=path.suffix == ".gz", name=path.name)


@task(cache_policy=NO_CACHE)
def convert(source: Path, target: Path) -> int:
    """Write ``target``, which appears only when it is complete; answers the number of rows."""
    progress = ConversionProgress(f"{source.name} to Parquet")
    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    writer: Any = None
    rows = 0
    try:
        # New under a name that nobody knows: a link that stands there already would lead elsewhere.
        with draft.open("xb") as file:
            for share, batch in pieces(source):
                writer = writer or pq.ParquetWriter(file, batch.schema, compression="zstd")
                writer.write_batch(batch)
                rows += batch.num_rows
                progress.reached(share)
            if writer is None:
                raise ValueError(f"{visible(source.name)} has no rows")
            writer.close()
        draft.replace(target)
    except pa.ArrowInvalid as error:
        raise ValueError(visible(f"{source.name} cannot be read as CSV: {error}")) from error
    finally:
        draft.unlink(missing_ok=True)
    progress.reached(1)
    return rows


@flow(name="csv-to-parquet")
def csv_to_parquet(path: str, target: str | None = None) -> State[dict[str, Any]]:
    """Convert the CSV (or CSV.gz) file at ``path``; ``target`` is by default the same name with .parquet beside it."""
    source = Path(path)
    plain = source.with_suffix("") if source.suffix == ".gz" else source
    written = Path(target) if target else plain.with_suffix(".parquet")
    rows = convert(source, written)
    summary = {"file": str(written), "rows": rows, "bytes": written.stat().st_size}
    return Completed(message=visible(f"{rows} rows of {source.name} are in {written.name}"), data=summary)
