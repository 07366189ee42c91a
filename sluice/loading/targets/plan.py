"""Matches the columns of a file with those of a table, before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import pyarrow as pa

from sluice.loading.errors import RefusedFile
from sluice.loading.names import column_key

TEXT: Final = pa.string()


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where the rows of a file go, and how."""

    table: str
    flow: str
    """The flow to which the table belongs, see `sluice.claim_table`."""
    schema: str | None = None
    """The database's schema (MySQL: the database); None for the connection's own."""
    outside: bool = False
    """Whether the table's name comes from a file's name or a message."""
    spelling: str | None = None
    """The name from which an outside name was made: ``NameFromFile.spelling``."""
    mode: Literal["append", "replace", "upsert"] = "append"
    key: tuple[str, ...] = ()
    """The primary key of a table that is created; with ``upsert``, the columns that identify rows."""
    new_columns: Literal["refuse", "add"] = "refuse"
    wider_types: Literal["refuse", "widen"] = "refuse"

    @property
    def full_name(self) -> str:
        """The name with its schema, to be shown and stored."""
        return f"{self.schema}.{self.table}" if self.schema else self.table

    @property
    def claim(self) -> dict[str, Any]:
        """The arguments of `sluice.claim_table` besides the name."""
        return {"flow": self.flow, "outside": self.outside, "schema": self.schema, "spelling": self.spelling}

    def check_not_emptied(self, rows: int) -> None:
        """Raise `RefusedFile` if a file without rows would replace those of the table."""
        if not rows:
            raise RefusedFile(
                f"the file has no rows, and would leave the table {self.full_name} empty: if that is meant, delete its "
                "rows"
            )


@dataclass(frozen=True, slots=True)
class FileVersion:
    """The properties by which a file is recognized as loaded before."""

    name: str
    version: str
    """``INODE-SIZE-MTIMENS``, as `sluice.OpenedFile` has it."""
    digest: str
    """SHA-256 of the content."""
    made_ns: int | None = None
    """As `sluice.OpenedFile` has it."""
    digest_of_first: Callable[[int], str] | None = field(default=None, compare=False)
    """Returns the SHA-256 of its first bytes, whose number it is given."""


@dataclass(frozen=True, slots=True)
class LoadQuality:
    """What became of the rows of a file."""

    rows: int
    """Number of rows loaded."""
    bad: int = 0
    """Number of rows left out."""
    empty_shares: Mapping[str, float] = field(default_factory=dict)
    """The share of missing values by column, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class PastLoad:
    """An earlier load, as the target has recorded it."""

    file: str
    loaded_at: str
    """ISO 8601, in UTC."""
    quality: LoadQuality


def loaded_by(loads: Sequence[PastLoad]) -> str:
    """Return, for a message, from which of these loads (the oldest first) a row of a table can be."""
    if not loads:
        return "not from a file that was loaded"
    last = f"{loads[-1].file}, loaded at {loads[-1].loaded_at[:19]}"
    return f"from {last}" if len(loads) == 1 else f"from one of {len(loads)} loads, the last of them {last}"


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column of an existing table."""

    name: str
    type: pa.DataType | None
    """What it holds unchanged; None if it gets text, which the database converts or refuses."""
    declared: str
    """Its type as the database names it."""


@dataclass(frozen=True, slots=True)
class Misfit:
    """A column of the file whose values the table's column does not hold unchanged."""

    column: str
    there: TableColumn
    needed: pa.DataType
    statements: tuple[str, ...] = ()
    """The statements that make the table's column wide enough."""
    advice: str | None = None
    """What to do if no statement makes it wider."""

    def __str__(self) -> str:
        if self.advice is not None:
            return f"the column {self.column!r} holds {self.needed}, not {self.there.declared}: {self.advice}"
        by = f": {' '.join(f'{one};' for one in self.statements)}".replace("%%", "%") if self.statements else ""
        return (
            f"the column {self.column!r} holds {self.needed}, and the table's is {self.there.declared}; widen it{by} "
            "(or `wider_types: widen` in the contract)"
        )


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """Which columns are written, and how the table is changed before."""

    schema: pa.Schema
    """The schema of the batches to be written: the file's columns in order, named as in the table, with their types."""
    there: tuple[TableColumn, ...]
    """The columns of the table; empty if it does not exist yet."""
    added: tuple[str, ...] = ()
    """Columns that the table will get."""
    misfits: tuple[Misfit, ...] = ()
    """Columns of the table that will be widened, with ``wider_types: widen``; otherwise the file is refused."""


def make_plan(to: Destination, found: pa.Schema, there: Sequence[TableColumn] | None) -> LoadPlan:
    """Return how a file with the columns ``found`` goes into a table with the columns ``there`` (None: no table yet).

    Raises `RefusedFile` for columns that the table lacks and is not to get, and for a key that the file lacks.
    """
    by_name = {one.name: one for one in there or ()}
    by_key = {column_key(one.name): one for one in reversed(there or ())}
    fields: list[pa.Field] = []
    added: list[str] = []
    misfits: list[Misfit] = []
    for one in found:
        column = by_name.get(one.name) or by_key.get(column_key(one.name))
        if column is None:
            added += [one.name] if there is not None else []
            fields.append(pa.field(one.name, TEXT if pa.types.is_null(one.type) else one.type))
            continue
        type_ = written_as(column.type, one.type)
        if type_ is None:
            type_ = wider(column.type or TEXT, one.type)
            misfits.append(Misfit(one.name, column, type_))
        fields.append(pa.field(column.name, type_))
    if added and to.new_columns == "refuse":
        raise RefusedFile(
            f"the table {to.full_name} lacks the columns {added} (it has {list(by_name)}): add them, with "
            "`new_columns: add` in the contract or by hand, or load into another table"
        )
    schema = pa.schema(fields)
    _check_key(to, schema)
    return LoadPlan(schema, tuple(there or ()), tuple(added), tuple(misfits))


def _check_key(to: Destination, schema: pa.Schema) -> None:
    if to.mode == "upsert" and not to.key:
        raise RefusedFile(f"rows of {to.full_name} are to be updated by their key, and none is named: `primaryKey`")
    names = {column_key(name) for name in schema.names}
    missing = [name for name in to.key if column_key(name) not in names]
    if missing:
        raise RefusedFile(f"the columns {missing} are the key of {to.full_name}, and the file lacks them")


def key_of(to: Destination, schema: pa.Schema) -> list[str]:
    """Return the columns of the key as the schema names them."""
    by_key = {column_key(name): name for name in schema.names}
    return [by_key[column_key(name)] for name in to.key]


def written_as(there: pa.DataType | None, found: pa.DataType) -> pa.DataType | None:
    """Return the type as which values of ``found`` are written; None if the column does not hold them unchanged.

    A single value may still not fit (out of range, not a date); that shows when it is converted.
    """
    if there is None:
        return TEXT if _is_plain(found) else found
    if there == pa.float32():
        there = pa.float64()  # whether its digits fit is looked at for each value
    if found == there or pa.types.is_null(found) or there == TEXT:
        return there
    takes = _TAKES.get(_family(there), frozenset())
    return there if _family(found) in takes else None


def wider(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """Return the narrowest type that holds the values of both; text if nothing else does."""
    families = {_family(one), _family(other)}
    if families <= {"integer"}:
        return max(one, other, key=lambda type_: type_.bit_width)
    if families <= {"integer", "real"}:
        return pa.float64()
    return TEXT


def _family(type_: pa.DataType) -> str:
    found = pa.types
    tests = (
        (found.is_boolean, "boolean"),
        (found.is_integer, "integer"),
        (found.is_floating, "real"),
        (found.is_decimal, "decimal"),
        (found.is_date, "date"),
        (found.is_time, "time"),
        (found.is_string, "text"),
    )
    if found.is_timestamp(type_):
        return "moment" if type_.tz else "timestamp"
    return next((family for test, family in tests if test(type_)), "other")


_TAKES: Final[Mapping[str, frozenset[str]]] = {
    "boolean": frozenset({"boolean", "text"}),
    "integer": frozenset({"integer"}),
    "real": frozenset({"integer", "real"}),
    "decimal": frozenset({"integer", "real", "decimal", "text"}),
    "date": frozenset({"date", "text"}),
    "time": frozenset({"time", "text"}),
    "timestamp": frozenset({"date", "timestamp", "text"}),
    "moment": frozenset({"moment", "text"}),
}
"""The types that a column accepts if each value fits. Text becomes a date or a decimal, but never an integer or real:
these are inferred from all values of a file, so that at least one value of a column of text is none.
"""


def _is_plain(type_: pa.DataType) -> bool:
    return _family(type_) in {"boolean", "integer", "real", "text"} or pa.types.is_null(type_)
