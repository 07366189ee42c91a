"""What one file may cost: limits that are reached before the machine's are, and a reader that keeps to them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Annotated, Final, NoReturn

from pydantic import BaseModel, ConfigDict, Field

from sluice.errors import OverBudget

FREE_BYTES: Final = 4 * 1024 * 1024
"""So much may come out of a file whatever its size: small files compress as they like."""

Count = Annotated[int, Field(ge=1)]


class Budget(BaseModel):
    """What reading one file may cost at most; the defaults suit a machine with 2 GB of memory.

    A flow that takes one as a parameter lets a rule or a deployment raise single limits: ``budget: {rows: 50000000}``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    unpacked_bytes: Count = 1024**3
    """Of the whole file, after decompression."""
    expansion_ratio: Count = 200
    """How many times as large as the file what comes out of it may be, beyond the first 4 MiB."""
    line_bytes: Count = 16 * 1024 * 1024
    """Of one record: a line, a quoted record of several lines, or the values of one row."""
    columns: Count = 1_000
    rows: Count = 100_000_000
    cells: Count = 1_000_000_000
    """Rows times columns, empty ones included."""
    members: Count = 1_000
    """Files of one archive."""
    block_bytes: Count = 256 * 1024 * 1024
    """Of a part of a file that must be in memory as a whole: a workbook, a record batch of an Arrow file."""

    def exceeded(self, name: str, what: str) -> NoReturn:
        """Raise `OverBudget`: the limit ``name`` is reached, as ``what`` says."""
        value = getattr(self, name)
        raise OverBudget(
            f"{what}: the budget {name} = {value} is reached; if the file is to be trusted, raise it with the flow's "
            f'parameter `budget`, such as {{"{name}": {2 * value}}}, in the rule or the deployment'
        )

    def check(self, name: str, value: int, what: str) -> None:
        """Return if ``value`` is within the limit ``name``; else raise `OverBudget`."""
        if value > getattr(self, name):
            self.exceeded(name, what)


class Meter:
    """Counts what comes out of one file and raises `OverBudget` when it is too much."""

    def __init__(self, budget: Budget, size: int, *, name: str) -> None:
        self._budget = budget
        self._size = max(1, size)
        self._name = name
        self._ratio_bytes = max(FREE_BYTES, budget.expansion_ratio * self._size)
        self.total = 0

    def add(self, count: int) -> None:
        """So many bytes more have come out."""
        self.total += count
        if self.total > self._ratio_bytes:
            what = f"{self._name} has {self._size} bytes, and {self.total} came out of it before it was given up"
            self._budget.exceeded("expansion_ratio", what)
        if self.total > self._budget.unpacked_bytes:
            self._budget.exceeded(
                "unpacked_bytes", f"more than {self._budget.unpacked_bytes} bytes come out of {self._name}"
            )


class BoundedLines:
    """The lines of a text for a reader of records; a record may have several, and no more than the budget allows."""

    def __init__(self, text: IO[str], budget: Budget, name: str) -> None:
        self._text = text
        self._budget = budget
        self._name = name
        self._length = 0
        self._number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._text.readline(self._budget.line_bytes + 1)
        if not line:
            raise StopIteration
        self._number += 1
        self._length += len(line)
        if self._length > self._budget.line_bytes:
            self._budget.exceeded("line_bytes", f"{self._name}, line {self._number} is too long")
        return line

    def end_record(self) -> None:
        """The lines so far are dealt with."""
        self._length = 0
