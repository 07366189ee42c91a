"""Values of text as the types that a contract or a table asks for; a value that is none of the type is a bad one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from sluice.loading.contract import ContractField
from sluice.loading.inference import is_exact

_SURE_INTEGER: Final = r"^[+-]?[0-9]{1,18}$"
_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
_SURE_NUMBER: Final = r"^[+-]?(?:[0-9]{1,15}|[0-9]{1,9}\.[0-9]{0,6}|\.[0-9]{1,15})$"
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_PLAIN_INTEGER: Final = re.compile(r"0|-?[1-9][0-9]*")
_PLAIN_NUMBER: Final = re.compile(r"0|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+(?:[eE][-+]?[0-9]{1,3})?)?")
_TIME: Final = re.compile(r"[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?")
_FORMATS: Final = {
    "email": r"^[^@\s]+@[^@\s]+$",
    "uri": r"^[A-Za-z][A-Za-z0-9+.-]*:[^\s]+$",
    "uuid": r"^[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$",
}


@dataclass(frozen=True, slots=True)
class Converted:
    """A column as another type."""

    values: pa.Array
    bad: pa.BooleanArray | None = None
    """Where a value is none of the type; it is null there. None: there is no such value."""
    reason: str = ""
    """Follows the bad value in a sentence."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """From text to a type."""

    type: pa.DataType
    reason: str
    fast: Callable[[pa.StringArray], tuple[pa.Array, pa.BooleanArray]]
    """All values at once, and which of them are sure to be right; the others are null or wrong."""
    slow: Callable[[str], Any]
    """One value; raises `ValueError` where it is none."""

    def __call__(self, texts: pa.StringArray) -> Converted:
        values, sure = self.fast(texts)
        rest = pc.and_(pc.is_valid(texts), pc.invert(pc.fill_null(sure, False)))
        if not pc.any(rest).as_py():
            return Converted(values)
        bad, other = [], []
        for text in texts.filter(rest).to_pylist():
            try:
                other.append(self.slow(text))
                bad.append(False)
            except ValueError:
                other.append(None)
                bad.append(True)
        values = pc.replace_with_mask(values, rest, pa.array(other, self.type))
        if not any(bad):
            return Converted(values)
        no = pa.array([False] * len(texts))
        return Converted(values, pc.replace_with_mask(no, rest, pa.array(bad)), self.reason)


def conversion_of(one: ContractField) -> Conversion | None:  # noqa: PLR0911 - a list of types
    """What makes the values of a field; None for `any`, whose type is found by looking. Raises `ValueError`."""
    match one.type:
        case "string":
            return _string(one)
        case "integer":
            return _grouped(_INTEGERS, one)
        case "number":
            return _grouped(_NUMBERS, one)
        case "boolean":
            return _boolean(one)
        case "date":
            return _DATES if one.format == "default" else _patterned(one, pa.date32())
        case "datetime":
            return None if one.format == "default" else _patterned(one, _moment(one.format))
        case "time":
            return _TIMES if one.format == "default" else _patterned(one, pa.time64("us"))
        case "year":
            return Conversion(pa.int64(), "is not a year", _sure_integers(r"^-?[0-9]{4}$"), _no_value)
        case "object" | "array":
            return _json(dict if one.type == "object" else list)
    return None


def to_type(type_: pa.DataType) -> Conversion:  # noqa: PLR0911 - a list of types
    """What makes values of a table's column of text that no contract gives a meaning: numbers must give it back.

    Raises `ValueError` for a type that text does not become.
    """
    if pa.types.is_string(type_):
        return Conversion(type_, "", lambda texts: (texts, pc.is_valid(texts)), str)
    if pa.types.is_integer(type_):
        return _plain_integers(type_)
    if pa.types.is_floating(type_):
        return _PLAIN_NUMBERS
    if pa.types.is_decimal(type_):
        return _decimals(type_)
    if pa.types.is_boolean(type_):
        return _boolean(ContractField(name="-", true_values=("true", "t", "1"), false_values=("false", "f", "0")))
    if type_ == pa.date32():
        return _DATES
    if pa.types.is_timestamp(type_):
        return timestamps(type_)
    if pa.types.is_time(type_):
        return _TIMES
    raise ValueError(f"no text becomes {type_}")


def _no_value(text: str) -> Any:
    raise ValueError(text)


def _sure_integers(pattern: str) -> Callable[[pa.StringArray], tuple[pa.Array, pa.BooleanArray]]:
    def fast(texts: pa.StringArray) -> tuple[pa.Array, pa.BooleanArray]:
        sure = pc.match_substring_regex(texts, pattern)
        plain = pc.if_else(sure, texts, None)
        if pc.any(pc.starts_with(plain, "+")).as_py():
            plain = pc.replace_substring(plain, "+", "", max_replacements=1)
        return pc.cast(plain, pa.int64()), sure

    return fast


def _integer(text: str) -> int:
    number = int(text) if _INTEGER.fullmatch(text) else None
    if number is None or not -(2**63) <= number < 2**63:
        raise ValueError(text)
    return number


def _sure_numbers(texts: pa.StringArray) -> tuple[pa.Array, pa.BooleanArray]:
    sure = pc.match_substring_regex(texts, _SURE_NUMBER)
    return pc.cast(pc.if_else(sure, texts, None), pa.float64()), sure


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text) or not is_exact(text):
        raise ValueError(text)
    return float(text)


_INTEGERS: Final = Conversion(pa.int64(), "is not an integer of 64 bits", _sure_integers(_SURE_INTEGER), _integer)
_NUMBERS: Final = Conversion(
    pa.float64(), "is not a number, or has more digits than a floating-point number holds", _sure_numbers, _number
)


def _plain_integers(type_: pa.DataType) -> Conversion:
    """Integers of a table's column, written as a number gives them back."""

    def slow(text: str) -> int:
        if not _PLAIN_INTEGER.fullmatch(text):
            raise ValueError(text)
        return pa.scalar(int(text), type_).as_py()  # type: ignore[no-any-return]

    def fast(texts: pa.StringArray) -> tuple[pa.Array, pa.BooleanArray]:
        sure = pc.match_substring_regex(texts, r"^(?:0|-?[1-9][0-9]{0,17})$")
        numbers = pc.cast(pc.if_else(sure, texts, None), pa.int64())
        try:
            return pc.cast(numbers, type_), sure
        except pa.ArrowInvalid:  # out of the range of the column
            return pa.nulls(len(texts), type_), pa.array([False] * len(texts))

    bits = f"integer of {type_.bit_width} bits"
    return Conversion(type_, f"is not an {bits}, digit for digit", fast, slow)


def _plain_number(text: str) -> float:
    padded = text.endswith("0") and "." in text and not text.endswith(".0") and "e" not in text.lower()
    if not _PLAIN_NUMBER.fullmatch(text) or padded or not is_exact(text):
        raise ValueError(text)
    return float(text)


def _sure_plain_numbers(texts: pa.StringArray) -> tuple[pa.Array, pa.BooleanArray]:
    sure = pc.match_substring_regex(texts, r"^(?:0|-?[1-9][0-9]{0,14}|-?(?:0|[1-9][0-9]{0,8})\.[0-9]{0,5}[1-9])$")
    return pc.cast(pc.if_else(sure, texts, None), pa.float64()), sure


_PLAIN_NUMBERS: Final = Conversion(
    pa.float64(),
    "is not a number that a floating-point number gives back, digit for digit",
    _sure_plain_numbers,
    _plain_number,
)


def _grouped(plain: Conversion, one: ContractField) -> Conversion:
    """Numbers as they are written in a country: 1.234,50 or 12 %."""
    if one.decimal_char == "." and one.group_char is None and one.bare_number:
        return plain
    around = re.compile(r"^[^0-9+\-.,]+|[^0-9.,]+$")
    group, point = re.escape(one.group_char or ""), re.escape(one.decimal_char)
    in_groups = re.compile(rf"[+-]?[0-9]{{1,3}}(?:{group}[0-9]{{2,3}})*{group}[0-9]{{3}}(?:{point}[0-9]*)?")

    def clean(text: str) -> str | None:
        """As a number is written here; None for what has signs of it in the wrong places."""
        text = text if one.bare_number else around.sub("", text)
        if one.group_char is not None and one.group_char in text:
            if not in_groups.fullmatch(text):
                return None
            text = text.replace(one.group_char, "")
        if one.decimal_char != ".":
            text = text.replace(".", "\0").replace(one.decimal_char, ".")
        return text

    def fast(texts: pa.StringArray) -> tuple[pa.Array, pa.BooleanArray]:
        if one.decimal_char != "." and one.group_char is None and one.bare_number:
            pointed = pc.match_substring(texts, ".")
            return plain.fast(pc.replace_substring(pc.if_else(pointed, None, texts), one.decimal_char, "."))
        return plain.fast(pa.array([None if text is None else clean(text) for text in texts.to_pylist()], pa.string()))

    def slow(text: str) -> Any:
        cleaned = clean(text)
        if cleaned is None:
            raise ValueError(text)
        return plain.slow(cleaned)

    return Conversion(plain.type, plain.reason, fast, slow)


def _decimals(type_: pa.DataType) -> Conversion:
    def slow(text: str) -> Decimal:
        try:
            number = Decimal(text)
            return pa.scalar(number, type_).as_py()  # type: ignore[no-any-return]
        except (InvalidOperation, pa.ArrowInvalid) as error:
            raise ValueError(text) from error

    def fast(texts: pa.StringArray) -> tuple[pa.Array, pa.BooleanArray]:
        whole = max(1, min(type_.precision - type_.scale, 18))
        point = rf"(?:\.[0-9]{{1,{type_.scale}}})?" if type_.scale else ""
        sure = pc.match_substring_regex(texts, rf"^-?[0-9]{{1,{whole}}}{point}$")
        return pc.cast(pc.if_else(sure, texts, None), type_), sure

    return Conversion(type_, f"is not a number of {type_.precision} digits, {type_.scale} of them decimals", fast, slow)


def _boolean(one: ContractField) -> Conversion:
    true, false = pa.array(one.true_values), pa.array(one.false_values)

    def fast(texts: pa.StringArray) -> tuple[pa.Array, pa.BooleanArray]:
        is_true = pc.is_in(texts, true)
        known = pc.or_(is_true, pc.is_in(texts, false))
        return pc.if_else(known, is_true, pa.scalar(None, pa.bool_())), known

    return Conversion(pa.bool_(), f"is none of {[*one.true_values, *one.false_values]}", fast, _no_value)


def _whole_or_none(type_: pa.DataType) -> Callable[[pa.StringArray], tuple[pa.Array, pa.BooleanArray]]:
    """Where one value cannot be cast, each is looked at by itself."""

    def fast(texts: pa.StringArray) -> tuple[pa.Array, pa.BooleanArray]:
        try:
            return pc.cast(texts, type_), pc.is_valid(texts)
        except pa.ArrowInvalid:
            return pa.nulls(len(texts), type_), pa.array([False] * len(texts))

    return fast


def _date(text: str) -> date:
    if not _DATE.fullmatch(text):
        raise ValueError(text)
    return date.fromisoformat(text)


_DATES: Final = Conversion(pa.date32(), "is not a date like 2026-12-31", _whole_or_none(pa.date32()), _date)


def timestamps(type_: pa.DataType) -> Conversion:
    """ISO 8601, with an offset if ``type_`` has a time zone, without one otherwise."""

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
    lambda texts: (pa.nulls(len(texts), pa.time64("us")), pa.array([False] * len(texts))),
    _time,
)


def _moment(pattern: str) -> pa.DataType:
    return pa.timestamp("us", tz="UTC" if "%z" in pattern else None)


def _patterned(one: ContractField, type_: pa.DataType) -> Conversion:
    """Dates and times in a pattern of ``strptime``."""
    pattern = one.format
    take: Callable[[datetime], Any] = {"date": datetime.date, "time": datetime.time}.get(one.type, lambda found: found)

    def slow(text: str) -> Any:
        return take(datetime.strptime(text, pattern))  # noqa: DTZ007 - the pattern says whether there is an offset

    def fast(texts: pa.StringArray) -> tuple[pa.Array, pa.BooleanArray]:
        unsure = pa.nulls(len(texts), type_), pa.array([False] * len(texts))
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
            found = json.loads(text)
        except RecursionError as error:
            raise ValueError(text) from error
        if not isinstance(found, kind):
            raise ValueError(text)  # noqa: TRY004 - it is a value of the file that is wrong
        return text

    def fast(texts: pa.StringArray) -> tuple[pa.Array, pa.BooleanArray]:
        return pa.nulls(len(texts), pa.string()), pa.array([False] * len(texts))

    return Conversion(pa.string(), f"is not a JSON {'object' if kind is dict else 'array'}", fast, slow)
