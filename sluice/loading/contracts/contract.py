"""The contract of files of one kind: what they must look like, and where their rows go.

A contract is a Data Resource of the Frictionless Data Package standard (version 2) in YAML: Table Schema, Table Dialect
and encoding. Keys that the standard does not have are under ``sluice``, besides ``mask``, ``start`` and ``width`` of a
field.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Positive = Annotated[int, Field(ge=1)]
Character = Annotated[str, Field(min_length=1, max_length=1)]
Scalar = str | int | float | bool


class ContractPart(BaseModel):
    """A part of a contract, with keys in camel case as the standard has them; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class DescribedPart(ContractPart):
    """A part with the standard's descriptions for readers and other programs, which have no effect here."""

    standard: Annotated[str | None, Field(alias="$schema")] = None
    """Address of the standard's JSON Schema."""
    name: str | None = None
    title: str | None = None
    description: str | None = None


class Constraints(ContractPart):
    """What each value of a column must satisfy; an empty value only fails ``required``."""

    required: bool = False
    unique: bool = False
    minimum: Scalar | None = None
    maximum: Scalar | None = None
    exclusive_minimum: Scalar | None = None
    exclusive_maximum: Scalar | None = None
    min_length: Annotated[int, Field(ge=0)] | None = None
    max_length: Annotated[int, Field(ge=0)] | None = None
    pattern: str | None = None
    enum: tuple[Scalar, ...] | None = None


class Mask(BaseModel):
    """How the values of a column with personal data are changed before they are stored or shown anywhere."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["email", "phone", "hmac", "partial", "drop"]
    region: str | None = None
    """Two letters of the country whose national telephone numbers the column has (``phone``)."""
    keep: Annotated[int, Field(ge=0)] = 4
    """Number of characters that stay at the end (``partial``)."""


class ContractField(ContractPart):
    """A column of the file."""

    name: Annotated[str, Field(min_length=1)]
    type: Literal[
        "string", "integer", "number", "boolean", "date", "datetime", "time", "year", "object", "array", "any"
    ] = "any"
    format: str = "default"
    title: str | None = None
    description: str | None = None
    example: Any = None
    """For readers, as ``rdf_type`` is for other programs; no effect here."""
    rdf_type: str | None = None
    constraints: Constraints = Constraints()
    decimal_char: Character = "."
    group_char: Character | None = None
    bare_number: bool = True
    true_values: tuple[str, ...] = ("true", "True", "TRUE", "1")
    false_values: tuple[str, ...] = ("false", "False", "FALSE", "0")
    missing_values: tuple[str, ...] | None = None
    mask: Mask | None = None
    start: Positive | None = None
    """Fixed width: the position, from 1, at which the field begins; by default where the field before it ends."""
    width: Positive | None = None
    """Fixed width: the number of characters."""

    def problems(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Yield what is invalid in this field: the path in it, and the problem."""
        known = _FORMATS.get(self.type, ("default",))
        if self.format not in known and not ("%" in self.format and "%" in known):
            shown = ", ".join("a pattern of strptime such as %d.%m.%Y" if one == "%" else one for one in known)
            yield ("format",), f"{self.format!r} is no format of {self.type} — write {shown}"
        said = self.constraints
        if said.pattern is not None:
            try:
                re.compile(said.pattern)
            except re.error as error:
                yield ("constraints", "pattern"), f"{said.pattern!r} is no pattern: {error}"
        bounds = (said.minimum, said.maximum, said.exclusive_minimum, said.exclusive_maximum)
        if self.type not in _ORDERED and any(one is not None for one in bounds):
            yield ("constraints",), f"a minimum or maximum is for numbers and times, and the type is {self.type}"
        if self.group_char == self.decimal_char:
            yield ("groupChar",), "it is the `decimalChar` too"
        if set(self.true_values) & set(self.false_values):
            yield ("trueValues",), f"{sorted(set(self.true_values) & set(self.false_values))} are `falseValues` too"


_ORDERED: Final = frozenset({"integer", "number", "date", "datetime", "time", "year"})
_FORMATS: Final[Mapping[str, tuple[str, ...]]] = {
    "string": ("default", "email", "uri", "uuid"),
    "date": ("default", "%"),
    "datetime": ("default", "%"),
    "time": ("default", "%"),
}


class FileSchema(DescribedPart):
    """A Table Schema: the columns and the primary key."""

    fields: tuple[ContractField, ...]
    missing_values: tuple[str, ...] = ("",)
    primary_key: str | tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, ...]:
        """The names of the columns of the primary key; empty if there is none."""
        return (self.primary_key,) if isinstance(self.primary_key, str) else self.primary_key

    def problems(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Yield what is invalid in this schema: the path in it, and the problem."""
        if not self.fields:
            yield ("fields",), "there is none — name the columns, or leave `schema` out"
        names = [one.name for one in self.fields]
        for name in self.key:
            if name not in names:
                yield ("primaryKey",), f"{name!r} is none of the fields"
        for position, one in enumerate(self.fields):
            if one.name in names[:position]:
                yield ("fields", position, "name"), f"{one.name!r} is there twice"
            for key, said in one.problems():
                yield ("fields", position, *key), said


class FileDialect(DescribedPart):
    """A Table Dialect. Keys that are not given are found out from the file, which is refused if that is ambiguous."""

    delimiter: Character | None = None
    quote_char: Character | None = None
    double_quote: bool | None = None
    escape_char: Character | None = None
    skip_initial_space: bool | None = None
    header: bool | None = None
    header_rows: tuple[Positive, ...] | None = None
    """Number of the line (in a sheet: of the row), from 1, with the names of the columns."""
    comment_char: Character | None = None
    property: str | None = None
    """JSON: the key of the document whose value is the array of rows."""
    sheet_name: str | None = None
    sheet_number: Positive | None = None


class LoadRules(BaseModel):
    """The keys under ``sluice``: where the rows go, and what happens to rows that break the contract."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    table: str | None = None
    database_schema: Annotated[str | None, Field(alias="schema")] = None
    mode: Literal["append", "replace", "upsert"] = "append"
    on_bad_rows: Literal["refuse", "quarantine", "approve"] = "refuse"
    max_bad_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """With ``approve``: the share of bad rows up to which no approval is needed."""
    new_columns: Literal["refuse", "add"] = "refuse"
    """What happens to columns that the contract or the table does not have."""
    wider_types: Literal["refuse", "widen"] = "refuse"
    """What happens to columns of the table that do not hold the values of a file."""
    row_tag: str | None = None
    """XML: the name of the element that is a row."""


class Contract(DescribedPart):
    """The contract of files of one kind: what they must look like, and where their rows go."""

    type: Literal["table"] | None = None
    profile: str | None = None
    """For readers and other programs, like the keys below; no effect here."""
    mediatype: str | None = None
    homepage: str | None = None
    version: str | None = None
    created: Any = None
    keywords: Any = None
    sources: Any = None
    licenses: Any = None
    contributors: Any = None
    path: str | None = None
    """A glob for the files' names, such as ``orders-*.csv``."""
    format: str | None = None
    encoding: str | None = None
    dialect: FileDialect = FileDialect()
    file_schema: Annotated[FileSchema | None, Field(alias="schema")] = None
    sluice: LoadRules = LoadRules()

    @property
    def fields(self) -> tuple[ContractField, ...]:
        """The fields of its schema; empty without one."""
        return self.file_schema.fields if self.file_schema is not None else ()

    def field_of(self, column: str) -> ContractField | None:
        """Return the field of that name; None if there is none."""
        return next((one for one in self.fields if one.name == column), None)

    def problems(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Yield what is invalid beyond single keys: the path in the contract, and the problem with its solution."""
        if self.dialect.header is False and self.dialect.header_rows:
            yield ("dialect", "headerRows"), "there is no header to name a line of, with `header: false`"
        if self.dialect.header_rows is not None and len(self.dialect.header_rows) != 1:
            yield ("dialect", "headerRows"), "it is the number of one line, such as [3]"
        if self.sluice.mode == "upsert" and not (self.file_schema and self.file_schema.key):
            yield ("sluice", "mode"), "rows to be merged need a key — name it in `schema: {primaryKey: …}`"
        if self.file_schema is not None:
            for key, said in self.file_schema.problems():
                yield ("schema", *key), said


def parse_contract(data: Any) -> Contract:
    """Return the contract in ``data``, as YAML is read. Raises pydantic's `ValidationError`."""
    return Contract.model_validate(data)
