"""What a reader returns: the columns of one member of a file, and its rows in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Some rows of a file, in order."""

    rows: pa.RecordBatch
    """Text formats: every column is ``pa.string()``, null where the row lacks the field. Typed formats: as read."""
    lines: Callable[[], pa.Int64Array] | None = None
    """Finds the line, from 1, at which each row begins in its member; it is only called for batches with bad rows.

    None: the rows are counted, those of earlier batches included.
    """


@dataclass(frozen=True, slots=True)
class Reading:
    """How one member of a file is read."""

    columns: list[str]
    """As the file names them, before names are made unique for a database."""
    typed: bool
    """Whether the format has types of its own; otherwise every column is text, and types are found by looking."""
    batches: Callable[[], Iterator[RowBatch]]
    """Reads the rows from the first one, each time it is called. Raises `RefusedFile`."""
    unit: str = "line"
    """What ``RowBatch.lines`` counts: ``line``, ``row`` or ``element``."""
    evidence: dict[str, Any] = field(default_factory=dict)
    """What was found out, such as the dialect, and why; it is shown in the report of the load."""
