"""What a reader returns: the columns of one member of a file, and its rows in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be loaded as it is."""

    line: int
    column: str | None
    """The column at fault; None if it is not one column."""
    value: str | None
    reason: str
    """The reason, which follows the value in a sentence: ``is not a number``."""
    fields: tuple[str, ...] = ()
    """The fields of a record that does not have the columns of the file."""


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Some rows of a file, in order."""

    rows: pa.RecordBatch
    """Text formats: every column is ``pa.string()``, null if the row lacks the field. Typed formats: as read."""
    lines: Callable[[], pa.Int64Array] | None = None
    """Returns the line, from 1, at which each row begins in its member; called only for batches with bad rows.

    None: rows are counted, those of earlier batches included.
    """
    bad: tuple[BadRow, ...] = ()
    """Records among the rows that are not rows, such as one with too many fields."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How one member of a file is read."""

    columns: list[str]
    """The names in the file, before they are made unique for a database."""
    typed: bool
    """Whether the format has types of its own; otherwise every column is text, and types are inferred."""
    batches: Callable[[], Iterator[RowBatch]]
    """Reads the rows from the first one, each time it is called. Raises `RefusedFile`."""
    unit: str = "line"
    """What ``RowBatch.lines`` counts: ``line``, ``row`` or ``element``."""
    dialect: dict[str, Any] = field(default_factory=dict)
    """The dialect that was found, as a contract writes it."""
    notes: list[str] = field(default_factory=list)
    """Findings while the rows were read, for the report."""
    evidence: dict[str, Any] = field(default_factory=dict)
    """What was found, such as the dialect, and why; shown in the report of the load."""
