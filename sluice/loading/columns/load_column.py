"""The columns of a file as they are loaded: their conversions and checks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from sluice.loading.columns.constraints import FieldChecks
from sluice.loading.columns.conversion import conversion_of, timestamps, to_type
from sluice.loading.columns.converted import Conversion, Converted, as_text
from sluice.loading.columns.inference import ColumnLook
from sluice.loading.contracts.contract import Contract, ContractField, FileSchema
from sluice.loading.errors import RefusedFile
from sluice.loading.names import column_key
from sluice.loading.showing import MASKED, content

_OFFSET: Final = re.compile(r".*[0-9](?:Z|[+-][0-9]{2}:?[0-9]{2})")


@dataclass(slots=True)
class LoadColumn:
    """One column of a file."""

    name: str
    """The name in the file."""
    spec: ContractField
    """The field of the contract; one of type ``any`` if the contract has none."""
    typed: bool
    """Whether the format has types of its own; otherwise types are inferred from text."""
    missing: tuple[str, ...] = ()
    """Texts that mean a missing value, besides the empty one."""
    key: bool = False
    """Whether it is part of the primary key."""
    conversion: Conversion | None = None
    """The conversion to the contract's type; None if it asks for none."""
    checks: FieldChecks | None = None
    known: bool = False
    """Whether all values were read, so that the inferred type is final."""
    look: ColumnLook = field(default_factory=ColumnLook)
    _types: list[pa.DataType] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._convert_by(conversion_of(self.spec))

    @property
    def secret(self) -> bool:
        """Whether its values are masked, and must not be shown."""
        return self.spec.mask is not None

    @property
    def dropped(self) -> bool:
        """Whether the contract leaves the column out."""
        return self.spec.mask is not None and self.spec.mask.kind == "drop"

    @property
    def loaded_type(self) -> pa.DataType:
        """The type in the table, after masking."""
        return self.type if self.spec.mask is None else pa.string()

    @property
    def type(self) -> pa.DataType:
        """The type of its values, as far as they were read."""
        if self.conversion is not None:
            return self.conversion.type
        return common_type(self._types) if self.typed else self.look.type

    def converted(self, values: pa.Array) -> Converted:
        """Return the values converted to the contract's type; unchanged if it asks for none."""
        is_text = pa.types.is_string(values.type)
        if is_text and self.missing:
            values = pc.if_else(pc.is_in(values, pa.array(self.missing)), None, values)
        if self.conversion is None and not self.known:
            self._look(values)
        if self.conversion is None:
            return Converted(values)
        return self.conversion(values) if is_text else recast(values, self.conversion)

    def as_looked_at(self, values: pa.Array) -> pa.Array:
        """Return converted values in the type that was inferred so far."""
        looked_at = self.conversion is None and not self.typed and pa.types.is_string(values.type)
        if looked_at and self.look.type in {pa.int64(), pa.float64()}:
            return pc.cast(values, self.look.type)
        return values

    def fitted(self, values: pa.Array, type_: pa.DataType) -> Converted:
        """Return converted values in the type of a table's column; values that would change are bad."""
        if values.type == type_:
            return Converted(values)
        if pa.types.is_null(values.type) or values.null_count == len(values):
            return Converted(pa.nulls(len(values), type_))
        if not pa.types.is_string(values.type):
            return recast(values, to_type(type_))
        if self.conversion is None and not self.typed and type_ == self.look.type:
            return Converted(pc.cast(values, type_))  # all of them have been looked at
        return to_type(type_)(values)

    def bad(self, values: pa.Array) -> Iterator[tuple[pa.BooleanArray, str]]:
        """Yield which converted values break the contract, and why."""
        if self.secret and pa.types.is_string(values.type):
            yield pc.equal(values, MASKED), "stands for a value that was masked: put the value itself in its place"
        if self.checks is not None:
            yield from self.checks.bad(values)

    def _look(self, values: pa.Array) -> None:
        if self.typed and values.type not in self._types:
            self._types.append(values.type)
        if self.spec.type == "datetime":
            first = next(iter(as_text(values.drop_null()[:1]).to_pylist()), None)
            if first is not None:
                has_offset = _OFFSET.fullmatch(first) is not None
                self._convert_by(timestamps(pa.timestamp("us", tz="UTC" if has_offset else None)))
        elif not self.typed:
            self.look.add(values)

    def _convert_by(self, conversion: Conversion | None) -> None:
        self.conversion = conversion
        type_ = pa.string() if conversion is None else conversion.type
        if conversion is not None or self.spec.type != "datetime":
            self.checks = FieldChecks(self.spec, type_, key=self.key)


def recast(values: pa.Array, conversion: Conversion) -> Converted:
    """Convert values of a type to another one; values that would change are bad."""
    if values.type == conversion.type:
        return Converted(values)
    try:
        if _is_same_kind(values.type, conversion.type):
            return Converted(pc.cast(values, conversion.type))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        pass
    return conversion(as_text(values))


def _is_same_kind(one: pa.DataType, other: pa.DataType) -> bool:
    """Return whether values can stay the same: a number is not a time, nor a boolean, nor a time a moment."""
    if pa.types.is_null(one) or pa.types.is_string(other):
        return True
    if getattr(other, "tz", None) and not getattr(one, "tz", None):
        return False
    return any(all(map(is_it, (one, other))) for is_it in (_is_number, pa.types.is_temporal))


def _is_number(one: pa.DataType) -> bool:
    return any(is_it(one) for is_it in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal))


def common_type(types: Sequence[pa.DataType]) -> pa.DataType:
    """Return the narrowest type for values of all these types; ``null`` for none."""
    known = [one for one in types if not pa.types.is_null(one)]
    if not known:
        return pa.null()
    if all(one == known[0] for one in known):
        return known[0]
    numbers = all(pa.types.is_integer(one) or pa.types.is_floating(one) for one in known)
    if not numbers:
        return pa.string()
    return pa.int64() if all(pa.types.is_signed_integer(one) for one in known) else pa.float64()


def columns_of(names: Sequence[str], contract: Contract | None, *, typed: bool, label: str) -> list[LoadColumn]:
    """Return the columns of a file with these ``names``, in its order.

    Raises `RefusedFile` if they are not those of the contract, or the contract is invalid.
    """
    schema = contract.file_schema if contract is not None else None
    by_name, by_key = _fields(schema)
    found = []
    for position, name in enumerate(names, start=1):
        one = by_name.get(name) or by_key.get(_key(name))
        column = one or ContractField(name=name.strip() or f"column_{position}")
        missing = column.missing_values
        if missing is None:
            missing = schema.missing_values if schema is not None else ()
        key = schema is not None and column.name in schema.key
        try:
            found.append(LoadColumn(name, column, typed, tuple(word for word in missing if word), key))
        except ValueError as error:  # `sluice check` tells it with its line
            raise RefusedFile(f"{label}: the contract's field {column.name!r} cannot be: {error}") from error
    there = [one.spec.name for one in found]
    lacking = [name for name in by_name if name not in there]
    if lacking:
        raise RefusedFile(f"{label} lacks the columns {lacking} of the contract; it has {_shown(names, by_key)}")
    twice = {name for name in there if name in by_name and there.count(name) > 1}
    if twice:
        raise RefusedFile(
            f"{label} has the columns {sorted(twice)} of the contract more than once: {_shown(names, by_key)}"
        )
    unknown = [name for name in there if name not in by_name]
    if by_name and unknown and contract is not None and contract.sluice.new_columns == "refuse":
        raise RefusedFile(
            f"{label} has the columns {_shown(unknown, by_key)}, which the contract does not name: add them there, or "
            "write `new_columns: add` under `sluice`"
        )
    return found


def check_fields(contract: Contract) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield what is invalid in the fields of a contract: the path in it, and the problem."""
    for position, one in enumerate(contract.fields):
        if any(one.problems()):
            continue
        try:
            LoadColumn(one.name, one, typed=False)
        except ValueError as error:
            yield ("schema", "fields", position, "constraints"), str(error)


def _fields(schema: FileSchema | None) -> tuple[dict[str, ContractField], dict[str, ContractField]]:
    by_name = {one.name: one for one in schema.fields} if schema is not None else {}
    return by_name, {_key(name): one for name, one in by_name.items()}


def _shown(names: Sequence[str], known: Mapping[str, ContractField]) -> list[str]:
    """Return names for a message. Unknown ones may be values, if the file has no header, and may have to be hidden."""
    return [name if _key(name) in known else content(name) for name in names]


def _key(name: str) -> str:
    return column_key(" ".join(name.split()))
