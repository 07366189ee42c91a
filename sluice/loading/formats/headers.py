"""Decides whether the first record of a text has the names of the columns, from it and the rows below it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from sluice.loading.errors import AmbiguousFile
from sluice.loading.formats.header_words import tells
from sluice.loading.showing import content

_NUMBER: Final = re.compile(r"[-+]?(?:[0-9]+(?:[.,' ][0-9]+)*|[.,][0-9]+)(?:[eE][-+]?[0-9]+)?%?")
_DATE: Final = re.compile(r"[0-9]{1,4}[-/.][0-9]{1,2}[-/.][0-9]{1,4}(?:[T ][0-9:.,+Z-]*)?")
_YEAR: Final = re.compile(r"1[5-9][0-9]{2}|20[0-9]{2}|21[0-9]{2}")
_ADDRESS: Final = re.compile(r"[^@\s]+@[^@\s]+|[A-Za-z][A-Za-z0-9+.-]*://\S+")
_ENOUGH_ROWS: Final = 2


def check_header(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, label: str, line: int, unit: str = "line"
) -> str:
    """Return why the record in ``line`` is taken as the names of the columns of ``rows``, which are below it.

    Raises `AmbiguousFile` if it may as well be a row: one of its values looks like the values below, or all of it is
    text as they are and no usual name.
    """
    _check_named(header, rows, label, line)
    _check_ruled(rows, label, line, unit)
    _check_single(header, rows, label, line)
    columns = [
        (name, name.strip(), [row[place].strip() for row in rows if len(row) > place and row[place].strip()])
        for place, name in enumerate(header)
    ]
    certain = next((name for name, plain, values in columns if _is_certain(plain, values)), None)
    if certain is not None:
        return f"{unit} {line}: {content(certain, 40)!r} is text above values that are not"
    doubtful = next((name for name, plain, values in columns if _is_doubtful(plain, values)), None)
    told = next((name for name, plain, values in columns if _is_told(plain, values)), None)
    if doubtful is None and told is not None:
        return f"{unit} {line}: {content(told, 40)!r} is not as the values below; if it is a row, say `header: false`"
    below = "as the values below do" if rows else "and there is nothing below"
    why = f"{content(doubtful or header[0], 40)!r} looks like a value, {below}"
    raise AmbiguousFile(
        f"{label}: {unit} {line} can be the names of the columns or a row, because {why}: settle it in a contract, "
        "`dialect: {header: true}` or `dialect: {header: false}`"
    )


def _is_certain(name: str, values: Sequence[str]) -> bool:
    """Return whether it is a text above values that are not text."""
    return _kind(name) is None and len(values) >= _ENOUGH_ROWS and all(map(_kind, values))


def _is_doubtful(name: str, values: Sequence[str]) -> bool:
    """Return whether it may be one of the values."""
    kind = _kind(name)
    if kind is None:
        return _is_like(name, values)
    if kind is _YEAR and values and not all(map(_YEAR.fullmatch, values)):
        return False
    return all((_kind(value) is _DATE) == (kind is _DATE) and _kind(value) for value in values)


def _is_told(name: str, values: Sequence[str]) -> bool:
    """Return whether something distinguishes it from the values below, or from values in general."""
    kind = _kind(name)
    return tells(name, values) if kind is None else kind is _YEAR and bool(values)


def _is_like(name: str, values: Sequence[str]) -> bool:
    """Return whether a text may be one of the values below it: it is among them, or formed as all of them are."""
    if not name or len(values) < _ENOUGH_ROWS or any(map(_kind, values)):
        return False
    if name in values:
        return True
    shape = _shape(name)
    return shape is not None and all(_shape(value) == shape for value in values)


def _shape(text: str) -> str | None:
    """Return the form of addresses and numbers of articles, ``aa-9999`` for ``DE-0042``; None for words."""
    if _ADDRESS.fullmatch(text):
        return "://" if "://" in text else "@"
    if not any(map(str.isdecimal, text)):
        return None
    return "".join("9" if one.isdecimal() else "a" if one.isalpha() else one for one in text)


def _check_ruled(rows: Sequence[Sequence[str]], label: str, line: int, unit: str) -> None:
    """Refuse a line of dashes below the names, as database shells print one: it would be a row."""
    first = [value.strip() for value in rows[0] if value.strip()] if rows else []
    if any(len(value) > 1 for value in first) and all(set(value) <= set("-=+:") for value in first):
        raise AmbiguousFile(
            f"{label}: the {unit} below {unit} {line} is {content(first[0], 40)!r}, a rule and no row: have it written "
            "without; if it is a row, say `dialect: {header: true}` in a contract"
        )


def _check_single(header: Sequence[str], rows: Sequence[Sequence[str]], label: str, line: int) -> None:
    """Refuse a line of names that comes again further down."""
    if not any(_kind(name.strip()) for name in header) and list(header) in [list(row) for row in rows]:
        raise AmbiguousFile(
            f"{label}: line {line} stands there again further down, so that it is a row, or several files were put one "
            "behind the other: send those one by one; if it is a row, say `dialect: {header: false}` in a contract, "
            "and if both are meant, `dialect: {header: true}`"
        )


def _check_named(header: Sequence[str], rows: Sequence[Sequence[str]], label: str, line: int) -> None:
    """Refuse a title, or a line of delimiters, above the names: it leaves most columns without a name."""
    filled = [place for place in range(len(header)) if any(len(row) > place and row[place].strip() for row in rows)]
    unnamed = [place for place in filled if not header[place].strip()]
    if 2 * len(unnamed) > len(filled):
        raise AmbiguousFile(
            f"{label}: line {line} names {len(filled) - len(unnamed)} of {len(filled)} columns: if the names stand in "
            f"a line below, say so in a contract, for example `dialect: {{headerRows: [{line + 1}]}}`; if these are "
            f"the names, `dialect: {{headerRows: [{line}]}}`"
        )


def _kind(value: str) -> re.Pattern[str] | None:
    if _YEAR.fullmatch(value):
        return _YEAR
    return next((kind for kind in (_NUMBER, _DATE) if kind.fullmatch(value)), None)
