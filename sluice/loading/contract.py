"""What files of one kind must look like, and where their rows go.

A contract is a Data Resource of the Frictionless Data Package standard (version 2) in YAML: Table Schema, Table Dialect
and encoding. What the standard does not know is under ``sluice``, and ``mask``, ``start`` and ``width`` of a field.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Positive = Annotated[int, Field(ge=1)]
Character = Annotated[str, Field(min_length=1, max_length=1)]
Scalar = str | int | float | bool


class ContractPart(BaseModel):
    """Keys are written as the standard writes them, in camel case."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


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
    """How a column with personal data is changed before it goes anywhere."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["email", "phone", "hmac", "partial", "drop"]
    region: str | None = None
    """Two letters: whose national telephone numbers are meant (``phone``)."""
    keep: Annotated[int, Field(ge=0)] = 4
    """How many characters stay at the end (``partial``)."""


class ContractField(ContractPart):
    """A column."""

    name: Annotated[str, Field(min_length=1)]
    type: Literal[
        "string", "integer", "number", "boolean", "date", "datetime", "time", "year", "object", "array", "any"
    ] = "any"
    format: str = "default"
    title: str | None = None
    description: str | None = None
    constraints: Constraints = Constraints()
    decimal_char: Character = "."
    group_char: Character | None = None
    bare_number: bool = True
    true_values: tuple[str, ...] = ("true", "True", "TRUE", "1")
    false_values: tuple[str, ...] = ("false", "False", "FALSE", "0")
    missing_values: tuple[str, ...] | None = None
    mask: Mask | None = None
    start: Positive | None = None
    """Fixed width: the position, from 1, at which the field begins; without it, where the one before ends."""
    width: Positive | None = None
    """Fixed width: the number of characters."""


class FileSchema(ContractPart):
    """A Table Schema."""

    fields: Annotated[tuple[ContractField, ...], Field(min_length=1)]
    missing_values: tuple[str, ...] = ("",)
    primary_key: str | tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, ...]:
        """The names of the columns of the primary key."""
        return (self.primary_key,) if isinstance(self.primary_key, str) else self.primary_key


class FileDialect(ContractPart):
    """A Table Dialect. What is not given is found out, or the file is refused as ambiguous."""

    delimiter: Character | None = None
    quote_char: Character | None = None
    double_quote: bool | None = None
    escape_char: Character | None = None
    skip_initial_space: bool | None = None
    header: bool | None = None
    header_rows: Annotated[tuple[Positive, ...], Field(min_length=1, max_length=1)] | None = None
    """The number of the line (of the row of a sheet), from 1, with the names of the columns."""
    comment_char: Character | None = None
    property: str | None = None
    """JSON: the key of the document under which the array of rows lies."""
    sheet_name: str | None = None
    sheet_number: Positive | None = None


class LoadRules(BaseModel):
    """The keys under ``sluice``: where the rows go, and what happens to those that break the contract."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    table: str | None = None
    database_schema: Annotated[str | None, Field(alias="schema")] = None
    mode: Literal["append", "replace", "upsert"] = "append"
    on_bad_rows: Literal["refuse", "quarantine", "approve"] = "refuse"
    max_bad_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """With ``approve``: up to this share of bad rows nobody is asked."""
    new_columns: Literal["refuse", "add"] = "refuse"
    row_tag: str | None = None
    """XML: the name of the element that is a row."""


class Contract(ContractPart):
    """What files of one kind must look like, and where their rows go."""

    name: str | None = None
    title: str | None = None
    description: str | None = None
    path: str | None = None
    """A glob for the files' names, such as ``orders-*.csv``."""
    format: str | None = None
    encoding: str | None = None
    dialect: FileDialect = FileDialect()
    file_schema: Annotated[FileSchema | None, Field(alias="schema")] = None
    sluice: LoadRules = LoadRules()

    def field_of(self, column: str) -> ContractField | None:
        """The field of that name."""
        fields = self.file_schema.fields if self.file_schema else ()
        return next((one for one in fields if one.name == column), None)


def parse_contract(data: Any) -> Contract:
    """The contract in ``data``, as YAML gives it. Raises pydantic's `ValidationError`."""
    return Contract.model_validate(data)
