"""Whether the first record of a text has the names of the columns, by what it and the rows below look like."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from sluice.loading.errors import AmbiguousFile
from sluice.loading.showing import content

_NUMBER: Final = re.compile(r"[-+]?(?:[0-9]+(?:[.,' ][0-9]+)*|[.,][0-9]+)(?:[eE][-+]?[0-9]+)?%?")
_DATE: Final = re.compile(r"[0-9]{1,4}[-/.][0-9]{1,2}[-/.][0-9]{1,4}(?:[T ][0-9:.,+Z-]*)?")
_YEAR: Final = re.compile(r"1[5-9][0-9]{2}|20[0-9]{2}|21[0-9]{2}")
_ADDRESS: Final = re.compile(r"[^@\s]+@[^@\s]+|[A-Za-z][A-Za-z0-9+.-]*://\S+")
_ENOUGH_ROWS: Final = 2


def check_header(header: Sequence[str], rows: Sequence[Sequence[str]], *, label: str, line: int) -> str:
    """Why the record in ``line`` is taken for the names of the columns of ``rows``, which stand below it.

    Raises `AmbiguousFile` where it may as well be a row: a value of it looks like the values below.
    """
    _check_named(header, rows, label, line)
    _check_single(header, rows, label, line)
    doubtful = None
    certain = None
    for position, name in enumerate(header):
        values = [row[position].strip() for row in rows if len(row) > position and row[position].strip()]
        kind = _kind(name.strip())
        if kind is None:
            if len(values) >= _ENOUGH_ROWS and _kind(values[0]) and all(map(_kind, values)):
                certain = certain or name
            elif _is_like(name.strip(), values):
                doubtful = doubtful if doubtful is not None else name
        elif kind is _YEAR and values and not all(map(_YEAR.fullmatch, values)):
            continue
        elif all((_kind(value) is _DATE) == (kind is _DATE) and _kind(value) for value in values):
            doubtful = doubtful if doubtful is not None else name
    if doubtful is not None and certain is None:
        below = "as the values below do" if rows else "and there is nothing below"
        raise AmbiguousFile(
            f"{label}: line {line} can be the names of the columns or a row, because {content(doubtful, 40)!r} "
            f"looks like a value, {below}: settle it in a contract, `dialect: {{header: true}}` or "
            "`dialect: {header: false}`"
        )
    if certain is not None:
        return f"line {line}: {content(certain, 40)!r} is text above values that are not"
    return f"line {line}: nothing in it looks like a value; if it is a row, say `header: false`"


def _is_like(name: str, values: Sequence[str]) -> bool:
    """Whether a text can be one of the values below it: it is one of them, or made as all of them are."""
    if not name or len(values) < _ENOUGH_ROWS or any(map(_kind, values)):
        return False
    if name in values:
        return True
    shape = _shape(name)
    return shape is not None and all(_shape(value) == shape for value in values)


def _shape(text: str) -> str | None:
    """What addresses and numbers of articles are made like: ``DE-0042`` as ``aa-9999``; None for words."""
    if _ADDRESS.fullmatch(text):
        return "://" if "://" in text else "@"
    if not any(map(str.isdecimal, text)):
        return None
    return "".join("9" if one.isdecimal() else "a" if one.isalpha() else one for one in text)


def _check_single(header: Sequence[str], rows: Sequence[Sequence[str]], label: str, line: int) -> None:
    """Refuse a line with names that stands there again further down."""
    if not any(_kind(name.strip()) for name in header) and list(header) in [list(row) for row in rows]:
        raise AmbiguousFile(
            f"{label}: line {line} stands there again further down, so that it is a row, or several files were put one "
            "behind the other: send those one by one; if it is a row, say `dialect: {header: false}` in a contract, "
            "and if both are meant, `dialect: {header: true}`"
        )


def _check_named(header: Sequence[str], rows: Sequence[Sequence[str]], label: str, line: int) -> None:
    """Refuse a title, or a line of delimiters, that stands above the names: it leaves most columns without one."""
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
