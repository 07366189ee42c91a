"""Finds rows that repeat a value of an earlier row, over a whole file, in 8 bytes of memory for each row."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc

from sluice.loading.checking.checked_batch import Repeats


class UniqueColumns:
    """Remembers the values of one column, or of several together; a row without one of them repeats nothing.

    For text and for several columns a 64-bit hash is kept: among 10 million different values, two have the same hash
    with a probability of one in 300,000.
    """

    def __init__(self, positions: Sequence[int], reason: str) -> None:
        self.positions = positions
        self._reason = reason
        self._seen = array("q")
        self._rows: list[Sequence[int]] = []
        self._first: list[int] = []
        """For each batch, the numbers of its rows and how many values there were before it."""

    def add(self, columns: Sequence[pa.Array], rows: pa.Int64Array | range) -> None:
        """Add some rows; ``rows`` are their numbers in the file."""
        values = [columns[position] for position in self.positions]
        if any(one.null_count for one in values):
            there = reduce(pc.and_, (pc.is_valid(one) for one in values))
            values = [one.filter(there) for one in values]
            rows = pa.array(rows, pa.int64()).filter(there)
        if not len(values[0]):
            return
        self._first.append(len(self._seen))
        self._rows.append(rows if isinstance(rows, range) else array("q", rows.to_pylist()))
        if len(values) == 1 and pa.types.is_int64(values[0].type):
            start = values[0].offset
            self._seen.frombytes(memoryview(values[0].buffers()[1])[8 * start : 8 * (start + len(values[0]))])
        elif len(values) == 1:
            self._seen.extend(map(hash, pc.cast(values[0], pa.string()).to_pylist()))
        else:
            self._seen.extend(map(hash, zip(*(one.to_pylist() for one in values), strict=True)))

    def repeats(self) -> Repeats:
        """Return the rows that repeat an earlier one."""
        seen = pa.Array.from_buffers(pa.int64(), len(self._seen), [None, pa.py_buffer(self._seen)])
        if len(seen) < 2 or pc.all(pc.greater(seen[1:], seen[:-1])).as_py():  # noqa: PLR2004
            return Repeats(self._reason, ())
        order = pc.sort_indices(seen)
        ordered = seen.take(order)
        again = order[1:].filter(pc.equal(ordered[1:], ordered[:-1]))
        return Repeats(self._reason, sorted(map(self._row, again.to_pylist())))

    def _row(self, place: int) -> int:
        batch = bisect_right(self._first, place) - 1
        return self._rows[batch][place - self._first[batch]]
