"""Converts text to the types of a contract or a table; a value that is not of the type is a bad value."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import date, datetime, time
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from sluice.loading.columns.converted import Conversion
from sluice.loading.columns.numbers_from_text import (
    INTEGERS,
    NUMBERS,
    PLAIN_NUMBERS,
    decimals,
    grouped,
    plain_integers,
    sure_integers,
)
from sluice.loading.contracts.contract import ContractField

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME: Final = re.compile(r"[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?")
_FORMATS: Final = {
    "email": r"^[^@\s]+@[^@\s]+$",
    "uri": r"^[A-Za-z][A-Za-z0-9+.-]*:[^\s]+$",
    "uuid": r"^[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$",
}


def conversion_of(one: ContractField) -> Conversion | None:  # noqa: PLR0911 - a list of types
    """Return the conversion to the type of a field; None for `any`, whose type is inferred.

    Raises `ValueError` for a format that the type does not have.
    """
    match one.type:
        case "string":
            return _string(one)
        case "integer":
            return grouped(INTEGERS, one)
        case "number":
            return grouped(NUMBERS, one)
        case "boolean":
            return _boolean(one)
        case "date":
            return _DATES if one.format == "default" else _patterned(one, pa.date32())
        case "datetime":
            return None if one.format == "default" else _patterned(one, _moment(one.format))
        case "time":
            return _TIMES if one.format == "default" else _patterned(one, pa.time64("us"))
        case "year":
            return Conversion(pa.int64(), "is not a year", sure_integers(r"^-?[0-9]{4}$"), _no_value)
        case "object" | "array":
            return _json(dict if one.type == "object" else list)
    return None


def to_type(type_: pa.DataType) -> Conversion:  # noqa: PLR0911 - a list of types
    """Return the conversion of text to a table's column for which no contract names a type.

    A number is accepted only if the column gives the same text back: ``007`` is not the integer 7.
    """
    if pa.types.is_string(type_):
        return Conversion(type_, "", lambda texts: (texts, pc.is_valid(texts)), str)
    if pa.types.is_integer(type_):
        return plain_integers(type_)
    if pa.types.is_floating(type_):
        return PLAIN_NUMBERS
    if pa.types.is_decimal(type_):
        return decimals(type_)
    if pa.types.is_boolean(type_):
        return _boolean(ContractField(name="-", true_values=("true", "t", "1"), false_values=("false", "f", "0")))
    if type_ == pa.date32():
        return _DATES
    if pa.types.is_timestamp(type_):
        return timestamps(type_)
    if pa.types.is_time(type_):
        return _TIMES
    return Conversion(type_, f"is no value for a column of {type_}", _none_sure(type_), _no_value)


def _no_value(text: str) -> Any:
    raise ValueError(text)


def _boolean(one: ContractField) -> Conversion:
    true, false = pa.array(one.true_values), pa.array(one.false_values)

    def fast(texts: pa.StringArray) -> tuple[pa.Array, pa.BooleanArray]:
        is_true = pc.is_in(texts, true)
        known = pc.or_(is_true, pc.is_in(texts, false))
        return pc.if_else(known, is_true, pa.scalar(None, pa.bool_())), known

    return Conversion(pa.bool_(), f"is none of {[*one.true_values, *one.false_values]}", fast, _no_value)


def _whole_or_none(type_: pa.DataType) -> Callable[[pa.StringArray], tuple[pa.Array, pa.BooleanArray]]:
    """Return a conversion that casts all values at once; if one cannot be cast, each is converted by itself."""

    def fast(texts: pa.StringArray) -> tuple[pa.Array, pa.BooleanArray]:
        try:
            return pc.cast(texts, type_), pc.is_valid(texts)
        except pa.ArrowInvalid:
            return pa.nulls(len(texts), type_), pa.array([False] * len(texts), pa.bool_())

    return fast


def _none_sure(type_: pa.DataType) -> Callable[[pa.StringArray], tuple[pa.Array, pa.BooleanArray]]:
    """Return a conversion that leaves each value to the slow one."""
    return lambda texts: (pa.nulls(len(texts), type_), pa.array([False] * len(texts), pa.bool_()))


def _date(text: str) -> date:
    if not _DATE.fullmatch(text):
        raise ValueError(text)
    return date.fromisoformat(text)


_DATES: Final = Conversion(pa.date32(), "is not a date like 2026-12-31", _whole_or_none(pa.date32()), _date)


def timestamps(type_: pa.DataType) -> Conversion:
    """Return the conversion of ISO 8601 times, with an offset if ``type_`` has a time zone, otherwise without one."""

    def slow(text: str) -> datetime:
        return pc.cast(pa.array([text]), type_)[0].as_py()  # type: ignore[no-any-return]

    example = "2026-12-31T23:59:59+01:00" if type_.tz else "2026-12-31T23:59:59, without an offset"
    return Conversion(type_, f"is not a time like {example}", _whole_or_none(type_), slow)


def _time(text: str) -> time:
    if not _TIME.fullmatch(text):
        raise ValueError(text)
    return time.fromisoformat(text)


_TIMES: Final = Conversion(
    pa.time64("us"),
    "is not a time like 23:59:59",
    _none_sure(pa.time64("us")),
    _time,
)


def _moment(pattern: str) -> pa.DataType:
    return pa.timestamp("us", tz="UTC" if "%z" in pattern else None)


def _patterned(one: ContractField, type_: pa.DataType) -> Conversion:
    """Return the conversion of dates and times in a pattern of ``strptime``."""
    pattern = one.format
    take: Callable[[datetime], Any] = {"date": datetime.date, "time": datetime.time}.get(one.type, lambda found: found)

    def slow(text: str) -> Any:
        return take(datetime.strptime(text, pattern))  # noqa: DTZ007 - the pattern says whether there is an offset

    def fast(texts: pa.StringArray) -> tuple[pa.Array, pa.BooleanArray]:
        unsure = pa.nulls(len(texts), type_), pa.array([False] * len(texts), pa.bool_())
        if one.type == "time" or "%z" in pattern or "%f" in pattern:
            return unsure
        found = pc.strptime(texts, format=pattern, unit="us", error_is_null=True)
        back = pc.strftime(found, format=pattern)  # 30 February has become 1 March
        sure = pc.equal(back, texts)
        return pc.cast(pc.if_else(sure, found, pa.scalar(None, found.type)), type_), sure

    return Conversion(type_, f"does not fit the format {pattern!r}", fast, slow)


def _string(one: ContractField) -> Conversion:
    pattern = _FORMATS.get(one.format)

    def fast(texts: pa.StringArray) -> tuple[pa.Array, pa.BooleanArray]:
        if pattern is None:
            return texts, pc.is_valid(texts)
        sure = pc.match_substring_regex(texts, pattern)
        return pc.if_else(sure, texts, None), sure

    return Conversion(pa.string(), f"is not of the format {one.format}", fast, _no_value)


def _json(kind: type) -> Conversion:
    def slow(text: str) -> str:
        try:
            found = json.loads(text, parse_constant=_no_value)  # NaN is no JSON
        except RecursionError as error:
            raise ValueError(text) from error
        if not isinstance(found, kind):
            raise ValueError(text)  # noqa: TRY004 - it is a value of the file that is wrong
        return text

    return Conversion(
        pa.string(), f"is not a JSON {'object' if kind is dict else 'array'}", _none_sure(pa.string()), slow
    )
