"""Reads Parquet files, a few rows of a row group at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from sluice.budgets import Meter
from sluice.loading.contracts.contract import Contract
from sluice.loading.errors import RefusedFile
from sluice.loading.formats.columnar.arrow_weight import PIECE_BYTES, light_batches
from sluice.loading.formats.columnar.parquet_dictionary import longest_in_dictionary
from sluice.loading.formats.columnar.parquet_index import RowGroup, row_groups
from sluice.loading.formats.columnar.plain import Looked, look, plain
from sluice.loading.reading.batch import Reading, RowBatch
from sluice.loading.reading.source import Member

_MOST_ROWS: Final = 20_000


def read_parquet(member: Member, _contract: Contract | None) -> Reading:
    """Return the file's own columns and types, converted as `plain` says.

    Rows, columns and bytes in the file's index are checked against the budget before anything is read. Few enough rows
    are read at once that the longest text of each dictionary may occur in all of them.
    """
    looked = Looked()

    def raw() -> Iterator[pa.RecordBatch]:
        with _sentences(member), member.open_seekable() as stream:
            yield from light_batches(_batches(stream, member), member)

    def batches() -> Iterator[RowBatch]:
        with _sentences(member):
            for batch in raw():
                yield RowBatch(plain(batch, looked))

    with _sentences(member), member.open_seekable() as stream:
        columns = pq.ParquetFile(stream).schema_arrow.names
    look(raw(), looked, member.label)
    return Reading(columns, typed=True, batches=batches, unit="row", evidence=looked.evidence)


@contextmanager
def _sentences(member: Member) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeError, MemoryError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise RefusedFile(
            f"{member.label} is no readable Parquet file: {str(error) or 'it asks for more memory than there is'}"
        ) from error


def _batches(stream: BufferedIOBase, member: Member) -> Iterator[pa.RecordBatch]:
    found = pq.ParquetFile(stream)
    index = found.metadata
    groups = row_groups(stream, index.num_columns, member.label)
    _check_index(index, groups, found.schema, member)
    leaves = [found.schema.column(number) for number in range(index.num_columns)]
    texts = [number for number, leaf in enumerate(leaves) if leaf.physical_type == "BYTE_ARRAY"]
    flat = [number for number in texts if not leaves[number].max_repetition_level]
    # Of those in lists a row can have any number: they stay in their dictionary until they are weighed.
    repeated = [leaves[number].path for number in texts if number not in flat]
    found = pq.ParquetFile(stream, metadata=index, read_dictionary=repeated, buffer_size=1024 * 1024, pre_buffer=False)
    for number, group in enumerate(groups):
        row = max(1, group.unpacked // max(1, group.rows))
        row += sum(longest_in_dictionary(stream, group.chunks[column], member) for column in flat)
        for batch in found.iter_batches(max(1, min(_MOST_ROWS, PIECE_BYTES // row)), row_groups=[number]):
            batch.validate(full=True)
            yield batch


def _check_index(index: pq.FileMetaData, groups: list[RowGroup], schema: pq.ParquetSchema, member: Member) -> None:
    budget, label = member.budget, member.label
    budget.check("columns", index.num_columns, f"{label} has {index.num_columns} columns")
    budget.check("rows", index.num_rows, f"{label} has {index.num_rows} rows")
    in_lists = [schema.column(number).max_repetition_level > 0 for number in range(index.num_columns)]
    cells = 0
    total = Meter(budget, member.packed_size, name=label)
    for group in groups:
        for column, chunk in enumerate(group.chunks):
            if in_lists[column] and 8 * chunk.values > budget.line_bytes * max(1, group.rows):
                told = f"{label}, column {column + 1} has {chunk.values} values in {group.rows} rows"
                budget.exceeded("line_bytes", told)
        cells += max(sum(chunk.values for chunk in group.chunks), group.rows * len(group.chunks))
        budget.check("cells", cells, f"{label} has more than {cells} values")
        total.add(group.unpacked)
