"""Budgets of files: limits on the resources that reading one file may use, and a reader that enforces them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Annotated, Final, NoReturn

from pydantic import BaseModel, ConfigDict, Field

from sluice.errors import OverBudget

FREE_BYTES: Final = 4 * 1024 * 1024
"""Decompressed bytes up to which the expansion ratio is not checked, because small files may compress well."""

Count = Annotated[int, Field(ge=1)]


class Budget(BaseModel):
    """The limits for reading one file; the defaults suit a machine with 2 GB of memory.

    A flow that takes one as a parameter lets a rule or a deployment raise single limits: ``budget: {rows: 50000000}``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    unpacked_bytes: Count = 1024**3
    """Bytes of the whole file after decompression."""
    expansion_ratio: Count = 200
    """Greatest ratio of decompressed size to file size, beyond the first 4 MiB."""
    line_bytes: Count = 16 * 1024 * 1024
    """Bytes of one record: a line, a quoted record of several lines, or the values of one row."""
    columns: Count = 1_000
    rows: Count = 100_000_000
    cells: Count = 1_000_000_000
    """Rows times columns, empty ones included."""
    members: Count = 1_000
    """Number of files in one archive."""
    block_bytes: Count = 256 * 1024 * 1024
    """Bytes of a part that must be in memory as a whole: a workbook, a record batch of an Arrow file."""

    def exceeded(self, name: str, what: str) -> NoReturn:
        """Raise `OverBudget` for the limit ``name``; ``what`` describes the excess."""
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
    """Counts the decompressed bytes of one file and raises `OverBudget` beyond the limits."""

    def __init__(self, budget: Budget, size: int, *, name: str) -> None:
        self._budget = budget
        self._size = max(1, size)
        self._name = name
        self._ratio_bytes = max(FREE_BYTES, budget.expansion_ratio * self._size)
        self.total = 0

    def add(self, count: int) -> None:
        """Count further bytes."""
        self.total += count
        if self.total > self._ratio_bytes:
            what = f"{self._name} has {self._size} bytes, and {self.total} came out of it before it was given up"
            self._budget.exceeded("expansion_ratio", what)
        if self.total > self._budget.unpacked_bytes:
            self._budget.exceeded(
                "unpacked_bytes", f"more than {self._budget.unpacked_bytes} bytes come out of {self._name}"
            )


class BoundedLines:
    """The lines of a text for a reader of records; enforces the budget for records of several lines."""

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
        """End the record; the next line begins a new one."""
        self._length = 0
