"""Computes the size of the values of Arrow columns before repeated values are copied out of dictionaries and views."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from sluice.budgets import Meter
from sluice.loading.errors import RefusedFile
from sluice.loading.reading.source import Member

PIECE_BYTES: Final = 16 * 1024 * 1024
"""Size of the batches that are passed on; a single row may be larger, up to its budget."""


def light_batches(batches: Iterator[pa.RecordBatch], member: Member) -> Iterator[pa.RecordBatch]:
    """Yield the same rows in batches of at most `PIECE_BYTES`, or of a single row.

    Raises `OverBudget` for a row of more than ``line_bytes``, and if all rows are more than the budget allows.
    """
    budget = member.budget
    meter = Meter(budget, member.packed_size, name=member.label)
    row = 0
    for batch in batches:
        waiting = [batch] if batch.num_rows else []
        while waiting:
            piece = waiting.pop()
            weight = sum(_weight(column, member) for column in piece.columns)
            if weight > min(PIECE_BYTES, budget.line_bytes) and piece.num_rows > 1:
                middle = piece.num_rows // 2
                waiting += [piece.slice(middle), piece.slice(0, middle)]
                continue
            if piece.num_rows == 1:
                budget.check("line_bytes", weight, f"{member.label}, row {row + 1} has {weight} bytes")
            meter.add(weight)
            row += piece.num_rows
            yield piece


def _weight(column: pa.Array, member: Member) -> int:
    """Return the bytes of the column's values, each counted as often as it occurs."""
    kind = column.type
    weight = int(column.nbytes)
    if isinstance(column, pa.ExtensionArray):
        weight = _weight(column.storage, member)
    elif pa.types.is_dictionary(kind):
        if kind.value_type in _TEXTS:
            lengths = pc.binary_length(column.dictionary).cast(pa.int64())
            weight = 8 * len(column) + (pc.sum(lengths.take(column.indices)).as_py() or 0)
    elif pa.types.is_string_view(kind) or pa.types.is_binary_view(kind):
        weight = 16 * len(column) + _viewed(column)
    elif pa.types.is_struct(kind):
        weight = len(column) + sum(_weight(part, member) for part in column.flatten())
    elif pa.types.is_map(kind):
        column = column.cast(pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)])))
        weight = 8 * len(column) + _weight(column.flatten(), member)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        weight = 8 * len(column) + _weight(column.flatten(), member)
    elif pa.types.is_run_end_encoded(kind) or pa.types.is_nested(kind) or pa.types.is_interval(kind):
        raise RefusedFile(f"{member.label} has a column of the Arrow type {kind}, which is not supported: cast it")
    return weight


_TEXTS: Final = frozenset({pa.string(), pa.large_string(), pa.binary(), pa.large_binary()})


def _viewed(column: Any) -> int:
    """Return the sum of the lengths in the column's views: of their 16 bytes the first four are the length."""
    views = pa.Array.from_buffers(pa.int32(), 4 * (len(column) + column.offset), [None, column.buffers()[1]])
    places = pa.array(range(4 * column.offset, 4 * (len(column) + column.offset), 4), pa.int64())
    lengths = views.take(places).cast(pa.int64())
    return pc.sum(lengths.filter(column.is_valid())).as_py() or 0
