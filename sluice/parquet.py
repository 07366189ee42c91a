"""Reading a Parquet file in pieces whose size in memory is known before they become Python values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any, Final

from sluice.budgets import Budget, Meter

PIECE_BYTES: Final = 16 * 1024 * 1024
"""About so much becomes Python values at once; a single row may have more, up to its budget."""


def parquet_batches(file: IO[bytes], budget: Budget, *, size: int, name: str, most_rows: int = 2_000) -> Iterator[Any]:
    """The rows of a Parquet file as pyarrow record batches of at most ``most_rows``, in their order.

    What the file's own index says of rows, columns and bytes is held against the budget before anything is read. Texts
    stay in their dictionaries until a batch is small enough: a dictionary of one large text can stand for thousands of
    copies. Raises `OverBudget`, and pyarrow's errors for what is no Parquet file.
    """
    import pyarrow.parquet as pq  # costs a fifth of a second, and few flows need it

    found = pq.ParquetFile(file)
    index = found.metadata
    _check_index(index, found.schema, budget, size=size, name=name)
    leaves = [found.schema.column(number) for number in range(index.num_columns)]
    texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
    found = pq.ParquetFile(file, metadata=index, read_dictionary=texts, buffer_size=1024 * 1024, pre_buffer=False)
    total = sum(index.row_group(group).total_byte_size for group in range(index.num_row_groups))
    fitting = PIECE_BYTES * max(1, index.num_rows) // max(1, total)
    meter = Meter(budget, size, name=name)
    row = 0
    for batch in found.iter_batches(max(1, min(most_rows, fitting))):
        waiting = [batch]
        while waiting:
            piece = waiting.pop()
            weight = sum(_weight(column) for column in piece.columns)
            if weight > min(PIECE_BYTES, budget.line_bytes) and piece.num_rows > 1:
                middle = piece.num_rows // 2
                waiting += [piece.slice(middle), piece.slice(0, middle)]
                continue
            budget.check(
                "line_bytes", weight if piece.num_rows == 1 else 0, f"{name}, row {row + 1} has {weight} bytes"
            )
            meter.add(weight)
            row += piece.num_rows
            yield piece


def _check_index(index: Any, schema: Any, budget: Budget, *, size: int, name: str) -> None:
    budget.check("columns", index.num_columns, f"{name} has {index.num_columns} columns")
    budget.check("rows", index.num_rows, f"{name} has {index.num_rows} rows")
    cells = 0
    total = Meter(budget, size, name=name)
    for number in range(index.num_row_groups):
        group = index.row_group(number)
        values = 0
        for column in range(group.num_columns):
            count = group.column(column).num_values
            values += count
            if schema.column(column).max_repetition_level and 8 * count > budget.line_bytes * max(1, group.num_rows):
                budget.exceeded(
                    "line_bytes", f"{name}, column {column + 1} has {count} values in {group.num_rows} rows"
                )
        cells += max(values, group.num_rows * group.num_columns)
        budget.check("cells", cells, f"{name} has more than {cells} values")
        total.add(group.total_byte_size)


def _weight(column: Any) -> int:
    """The bytes of the column's values, each counted as often as it stands there."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_dictionary(kind):
        if not (pa.types.is_binary(kind.value_type) or pa.types.is_string(kind.value_type)):
            return int(column.nbytes)
        lengths = pc.binary_length(column.dictionary).cast(pa.int64())
        return 8 * len(column) + (pc.sum(lengths.take(column.indices)).as_py() or 0)
    if pa.types.is_struct(kind):
        return len(column) + sum(_weight(part) for part in column.flatten())
    if pa.types.is_map(kind):
        column = column.cast(pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)])))
        return 8 * len(column) + _weight(column.flatten())
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return 8 * len(column) + _weight(column.flatten())
    return int(column.nbytes)
