"""The first reading of a file: finds types, counts and bad rows before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

from sluice.loading.checking.checked_batch import CheckedBatch, Repeats, check_batch
from sluice.loading.checking.profile import ColumnProfile
from sluice.loading.checking.uniqueness import UniqueColumns
from sluice.loading.columns.load_column import LoadColumn, columns_of
from sluice.loading.contracts.contract import Contract
from sluice.loading.file_rows import FileRows, OnProgress
from sluice.loading.reading.batch import BadRow, RowBatch

EXAMPLES: Final = 20
"""Number of bad rows that are shown one by one."""


@dataclass(slots=True)
class Inspection:
    """What is known of a file after it was read once."""

    columns: list[LoadColumn]
    rows: int = 0
    """Number of rows read, good and bad."""
    bad: int = 0
    examples: list[tuple[str, BadRow]] = field(default_factory=list)
    """The first bad rows, each with the label of its member."""
    repeats: list[Repeats] = field(default_factory=list)
    profiles: list[ColumnProfile] = field(default_factory=list)
    unique: list[UniqueColumns] = field(default_factory=list)

    def add(self, label: str, batch: RowBatch, checked: CheckedBatch) -> None:
        """Count the rows of a checked batch, and look for repeated values in it."""
        self.rows += batch.rows.num_rows + len(batch.bad)
        self.note(label, checked.bad)
        for one in self.unique:
            one.add(checked.good.columns, checked.rows)
        for column, profile, values in zip(self.columns, self.profiles, checked.good.columns, strict=True):
            profile.add(column.as_looked_at(values))

    def find_repeats(self, rows: FileRows, types: Sequence[pa.DataType | None] | None = None) -> None:
        """Count rows that repeat another one as bad, after all rows were added; this reads the file again."""
        self.add_repeats([one.repeats() for one in self.unique], rows, types)

    def add_repeats(
        self, repeats: Sequence[Repeats], rows: FileRows, types: Sequence[pa.DataType | None] | None
    ) -> None:
        """Count these rows as bad; their values for the messages need another reading of the file."""
        found = [one for one in repeats if one.rows]
        self.repeats += found
        reasons = {one.reason for one in found}
        first_row = 0
        for label, batch in rows.batches() if found else ():
            checked = check_batch(self.columns, batch, first_row, repeats=self.repeats, types=types)
            self.note(label, [row for row in checked.bad if row.reason in reasons])
            first_row += batch.rows.num_rows

    @property
    def types_known(self) -> bool:
        """Whether the type of each column is certain, whatever values follow."""
        return bool(self.columns) and all(one.conversion is not None for one in self.columns)

    def look_ahead(self, rows: FileRows) -> None:
        """Find out from the first rows what holds for all: whether times have an offset."""
        waiting = [place for place, one in enumerate(self.columns) if one.conversion is None]
        if waiting and all(self.columns[place].spec.type == "datetime" for place in waiting):
            for _, batch in rows.batches():
                for place in waiting:
                    self.columns[place].converted(batch.rows.column(place))
                break

    def note(self, label: str, bad: Sequence[BadRow]) -> None:
        """Count bad rows, and keep the first ones to be shown."""
        self.bad += len(bad)
        self.examples += [(label, row) for row in bad[: EXAMPLES - len(self.examples)]]

    def refusal(self, unit: str) -> str:
        """Return what is wrong with the file in a sentence: its first bad row, and the number of others."""
        label, first = self.examples[0]
        more = f" (and {self.bad - 1} more of {self.rows} rows)" if self.bad > 1 else ""
        return f"{said_of(label, first, unit)}{more}"


def said_of(label: str, row: BadRow, unit: str) -> str:
    """Return a bad row as a sentence: ``orders.csv, line 3, column 'n': 'x' is not an integer``."""
    where = f"{label}, {unit} {row.line}" + (f", column {row.column!r}" if row.column is not None else "")
    value = f"{row.value[:60]!r} " if row.column is not None and row.value is not None else ""
    return f"{where}: {value}{row.reason}"


def begin(rows: FileRows, contract: Contract | None) -> Inspection:
    """Return an inspection of a file that is not read yet.

    Raises `RefusedFile` if the file has other columns than the contract, and `ValueError` for an invalid contract.
    """
    columns = columns_of(rows.columns, contract, typed=rows.typed, label=rows.label)
    profiles = [ColumnProfile(secret=one.secret) for one in columns]
    return Inspection(columns, profiles=profiles, unique=_unique(columns, contract))


def inspect(
    rows: FileRows,
    contract: Contract | None,
    progress: OnProgress | None = None,
    types: Sequence[pa.DataType | None] | None = None,
) -> Inspection:
    """Read the whole file and return what is known of it; nothing is written.

    ``types`` are those of the table's columns, where values must fit them. Raises `RefusedFile`, `sluice.OverBudget`,
    and `ValueError` for an invalid contract.
    """
    found = begin(rows, contract)
    first_row = 0
    for label, batch in rows.batches(progress):
        found.add(label, batch, check_batch(found.columns, batch, first_row, types=types))
        first_row += batch.rows.num_rows
    for column in found.columns:
        column.known = True
    found.find_repeats(rows, types)
    return found


def _unique(columns: Sequence[LoadColumn], contract: Contract | None) -> list[UniqueColumns]:
    found = [
        UniqueColumns([position], f"the contract says `unique`, and an earlier row has the same {one.name!r}")
        for position, one in enumerate(columns)
        if one.spec.constraints.unique
    ]
    schema = contract.file_schema if contract is not None else None
    if schema is not None and schema.key:
        places = {one.spec.name: position for position, one in enumerate(columns)}
        key = ", ".join(schema.key)
        found.append(UniqueColumns([places[name] for name in schema.key], f"an earlier row has the same key ({key})"))
    return found
