"""The report of a load as data, for messages, artifacts and programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from sluice.loading.checking.inspection import Inspection


@dataclass(frozen=True, slots=True)
class BadRows:
    """The number of bad rows of a file, and the first of them, without masked values."""

    count: int
    rows: int
    """Number of rows in the file, good and bad."""
    examples: list[dict[str, Any]]
    """The first bad rows, each with ``place``, ``column``, ``value`` and ``reason``."""

    @property
    def share(self) -> float:
        """The share of bad rows, from 0 to 1."""
        return self.count / self.rows if self.rows else 0.0


@dataclass(frozen=True, slots=True)
class LoadReport:
    """The result of loading a file."""

    file: str
    table: str
    """The table, with its schema if one was named."""
    mode: str
    rows: int
    """Number of rows loaded."""
    already: bool = False
    """Whether this version of the file was in the table before, so that nothing was done."""
    made: bool = False
    """Whether the table was created."""
    bad: BadRows | None = None
    rejected: Path | None = None
    """The file with the bad rows; None if there is none."""
    columns: list[dict[str, Any]] = field(default_factory=list)
    """For each: ``column``, ``type``, ``empty``, ``empty_share`` and, where they are known, ``least``, ``most``,
    ``top``, ``decimals`` and ``masked``."""
    evidence: dict[str, dict[str, Any]] = field(default_factory=dict)
    """How each member was read and why, by its label."""
    notes: list[str] = field(default_factory=list)
    bytes: int = 0
    seconds: float = 0.0

    @property
    def message(self) -> str:
        """Return the result in one sentence."""
        if self.already:
            return f"{self.file} is in the table {self.table} already: nothing to do"
        if not self.rows and not self.made:
            return f"{self.file} has no rows: nothing was loaded into {self.table}" + (
                "; the table is made with the first rows, which show the types" if not self.columns else ""
            )
        bad = f", {many(self.bad.count, 'bad row')} put into {self.rejected.name}" if self.bad and self.rejected else ""
        how = {"append": "loaded into", "replace": "put in the place of those in", "upsert": "merged into"}[self.mode]
        return f"{many(self.rows, 'row')} of {self.file} {how} the table {self.table}{bad}"

    def as_dict(self) -> dict[str, Any]:
        """Return the report as values of JSON."""
        return {**asdict(self), "rejected": str(self.rejected) if self.rejected else None}


def bad_rows(found: Inspection, unit: str) -> BadRows:
    """Return the bad rows of a file that was inspected."""
    examples = [
        {"place": f"{label}, {unit} {row.line}", "column": row.column, "value": row.value, "reason": row.reason}
        for label, row in found.examples
    ]
    return BadRows(found.bad, found.rows, examples)


def columns_told(found: Inspection, names: Sequence[str], schema: pa.Schema | None) -> list[dict[str, Any]]:
    """Return the columns of a file that was inspected; ``schema`` has their types in the table."""
    told = []
    places = iter(range(len(names)))
    for column, profile in zip(found.columns, found.profiles, strict=True):
        if column.dropped:
            told.append({"column": column.spec.name, "type": "nothing", **profile.told(), "masked": "drop"})
            continue
        place = next(places)
        type_ = schema.field(place).type if schema is not None else column.loaded_type
        one: dict[str, Any] = {"column": names[place], "type": type_name(type_), **profile.told()}
        if pa.types.is_string(column.type):  # numbers at the beginning, and something else later
            one = {name: value for name, value in one.items() if name not in {"least", "most"}}
        if column.look.decimals is not None:
            one["decimals"] = column.look.decimals
        if column.spec.mask is not None:
            one["masked"] = column.spec.mask.kind
        told.append(one)
    return told


_NAMES = {"int64": "integer", "double": "real", "string": "text", "bool": "boolean", "null": "nothing"}


def type_name(type_: pa.DataType) -> str:
    """Return the type in words."""
    return _NAMES.get(str(type_), str(type_))


def many(count: int, what: str, *, are: bool = False) -> str:
    """Return ``1 row``, ``2 rows``; with ``are`` ``1 row is``, ``2 rows are``."""
    said = f"{count} {what}{'' if count == 1 else 's'}"
    return f"{said} {'is' if count == 1 else 'are'}" if are else said
