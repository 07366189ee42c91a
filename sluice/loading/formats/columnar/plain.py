"""Converts the columns of formats with types of their own to types that databases have.

The results are boolean, 64-bit integer, 64-bit float, decimal, text, bytes, date, time and timestamp (microseconds).
Objects, lists, durations and times finer than microseconds become text, in JSON and ISO 8601.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from sluice.loading.errors import RefusedFile
from sluice.loading.formats.columnar.nested import iso_duration, json_text
from sluice.loading.showing import content

_PER_SECOND: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_MOST_DIGITS: Final = 38
_FIRST_DAY: Final = -12_687_428
_LAST_DAY: Final = 11_248_737
"""Days since 1970 until the last one of the years -32767 to 32767, which Arrow can convert to text."""


@dataclass(slots=True)
class Looked:
    """What the values of a file require beyond the types in its schema."""

    fine: set[int] = field(default_factory=set)
    """Columns with times that are finer than microseconds."""
    huge: set[int] = field(default_factory=set)
    """Columns with unsigned integers that signed 64 bits cannot hold."""
    not_numbers: Counter[str] = field(default_factory=Counter)
    """Number of values of a column that are NaN or infinite, which most databases cannot hold."""

    @property
    def evidence(self) -> dict[str, Any]:
        """Return the entry for the report of the load."""
        found = dict(+self.not_numbers)
        return {"values that are no number": found} if found else {}


def look(batches: Iterable[pa.RecordBatch], looked: Looked, label: str) -> None:
    """Note in ``looked`` what the values of all batches require.

    Raises `RefusedFile` for a date or time outside the years that Arrow can convert.
    """
    row = 1
    for batch in batches:
        for number, (name, column) in enumerate(zip(batch.schema.names, batch.columns, strict=True)):
            kind = column.type
            at = _outside_years(column)
            if at is not None:
                raise RefusedFile(
                    f"{label}: row {row + at}, column {content(name, 100)!r}: the value lies outside the years "
                    "-32767 to 32767: is its unit the right one? Leave values that mean `never` empty"
                )
            if pa.types.is_floating(kind) or pa.types.is_nested(kind):
                looked.not_numbers.update({name: _strange(column)})
            elif pa.types.is_uint64(kind) and (pc.max(column).as_py() or 0) >= 2**63:
                looked.huge.add(number)
            elif _is_nanoseconds(kind) and not _fits(column):
                looked.fine.add(number)
        row += batch.num_rows


def _outside_years(column: pa.Array) -> int | None:
    """Return the place of the first value with a date, at any depth, outside these years; None if there is none."""
    kind = column.type
    if pa.types.is_date(kind) or (pa.types.is_timestamp(kind) and kind.unit != "ns"):
        per_day = 86_400 * _PER_SECOND[kind.unit] if pa.types.is_timestamp(kind) else 1
        if pa.types.is_date64(kind):
            per_day = 86_400_000
        number = column.cast(pa.int32() if pa.types.is_date32(kind) else pa.int64())
        first, last = _FIRST_DAY * per_day, (_LAST_DAY + 1) * per_day - 1
        found = pc.index(pc.or_(pc.less(number, first), pc.greater(number, last)), True).as_py()
        return found if found >= 0 else None
    if pa.types.is_dictionary(kind):
        return _outside_years(column.dictionary_decode()) if _has_dates(kind) else None
    if pa.types.is_nested(kind) and _has_dates(kind):
        return next((place for place in range(len(column)) if _has_one_outside(column.slice(place, 1))), None)
    return None


def _has_dates(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _has_dates(kind.value_type)
    if pa.types.is_map(kind):
        return _has_dates(kind.key_type) or _has_dates(kind.item_type)
    if pa.types.is_nested(kind):
        return any(_has_dates(kind.field(number).type) for number in range(kind.num_fields))
    return bool(pa.types.is_date(kind) or pa.types.is_timestamp(kind))


def _has_one_outside(column: pa.Array) -> bool:
    if pa.types.is_struct(column.type):
        return any(_outside_years(part) is not None for part in column.flatten())
    return _outside_years(_listed(column).flatten()) is not None


def _strange(column: pa.Array) -> int:
    """Return the number of values, at any depth, that are NaN or infinite."""
    kind = column.type
    if pa.types.is_floating(kind):
        return pc.sum(pc.invert(pc.is_finite(column.cast(pa.float64())))).as_py() or 0
    if pa.types.is_struct(kind):
        return sum(map(_strange, column.flatten()))
    return _strange(_listed(column).flatten()) if pa.types.is_nested(kind) else 0


def _listed(column: pa.Array) -> pa.Array:
    """Return a column of maps as lists of pairs."""
    kind = column.type
    if not pa.types.is_map(kind):
        return column
    return column.cast(pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)])))


def _is_nanoseconds(kind: pa.DataType) -> bool:
    return bool((pa.types.is_timestamp(kind) or pa.types.is_time(kind)) and kind.unit == "ns")


def _fits(column: pa.Array) -> bool:
    """Return whether times in nanoseconds are whole microseconds."""
    count = column.cast(pa.int64())
    thousandths = pc.multiply(pc.divide(count, 1000), 1000)
    return bool(pc.all(pc.equal(count, thousandths), min_count=0).as_py())


def plain(batch: pa.RecordBatch, looked: Looked) -> pa.RecordBatch:
    """Return the batch with the types of this module; the schema is the same for every batch of a file."""
    columns = [_plain(column, number, looked) for number, column in enumerate(batch.columns)]
    return pa.RecordBatch.from_arrays(columns, batch.schema.names)


def _plain(column: pa.Array, number: int, looked: Looked) -> pa.Array:
    if isinstance(column, pa.ExtensionArray):
        return _each(column, str) if column.type == pa.uuid() else _plain(column.storage, number, looked)
    if pa.types.is_dictionary(column.type):
        return _plain(column.dictionary_decode(), number, looked)
    if pa.types.is_nested(column.type):
        return _each(column.cast(_without_times(column.type)), json_text)
    if pa.types.is_duration(column.type):
        per_second = _PER_SECOND[column.type.unit]
        return _each(column.cast(pa.int64()), lambda count: iso_duration(count, per_second))
    if number in looked.fine:
        if pa.types.is_timestamp(column.type) and column.type.tz:
            column = column.cast(pa.timestamp("ns", "UTC"))
        return pc.replace_substring(column.cast(pa.string()), " ", "T")
    return column.cast(_type(column.type, huge=number in looked.huge))


_TYPES: Final = (
    (pa.types.is_boolean, pa.bool_()),
    (pa.types.is_integer, pa.int64()),
    (pa.types.is_floating, pa.float64()),
    (pa.types.is_date, pa.date32()),
    (pa.types.is_time, pa.time64("us")),
    (pa.types.is_binary, pa.binary()),
    (pa.types.is_large_binary, pa.binary()),
    (pa.types.is_fixed_size_binary, pa.binary()),
    (pa.types.is_binary_view, pa.binary()),
)


def _type(kind: pa.DataType, *, huge: bool) -> pa.DataType:
    if huge:
        return pa.decimal128(20, 0)
    digits = kind.precision - min(0, kind.scale) if pa.types.is_decimal(kind) else 0  # a scale below 0 stands for zeros
    if 0 < digits <= _MOST_DIGITS and kind.scale <= kind.precision:
        return pa.decimal128(digits, max(0, kind.scale))
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz and "UTC")
    return next((type_ for is_it, type_ in _TYPES if is_it(kind)), pa.string())


def _each(column: pa.Array, make: Callable[..., str]) -> pa.Array:
    return pa.array([None if value is None else make(value) for value in column.to_pylist()], pa.string())


def _without_times(kind: pa.DataType) -> pa.DataType:
    """Return the nested type with texts for its times, because Python has no nanoseconds."""
    found = kind
    if pa.types.is_struct(kind):
        found = pa.struct([pa.field(one.name, _without_times(one.type)) for one in kind])
    elif pa.types.is_map(kind):
        found = pa.map_(_without_times(kind.key_type), _without_times(kind.item_type))
    elif pa.types.is_fixed_size_list(kind):
        found = pa.list_(_without_times(kind.value_type), kind.list_size)
    elif pa.types.is_large_list(kind) or pa.types.is_list(kind):
        found = pa.large_list(_without_times(kind.value_type))
    elif pa.types.is_timestamp(kind) or pa.types.is_time(kind):
        found = pa.string()
    elif pa.types.is_duration(kind):
        found = pa.duration("us")
    elif pa.types.is_dictionary(kind):
        found = kind.value_type
    return found
