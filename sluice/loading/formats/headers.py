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
_ENOUGH_ROWS: Final = 2


def check_header(header: Sequence[str], rows: Sequence[Sequence[str]], *, label: str, line: int) -> str:
    """Why the record in ``line`` is taken for the names of the columns of ``rows``, which stand below it.

    Raises `AmbiguousFile` where it may as well be a row: a value of it looks like the values below.
    """
    _check_named(header, rows, label, line)
    doubtful = None
    certain = None
    for position, name in enumerate(header):
        values = [row[position].strip() for row in rows if len(row) > position and row[position].strip()]
        kind = _kind(name.strip())
        if kind is None:
            if len(values) >= _ENOUGH_ROWS and _kind(values[0]) and all(map(_kind, values)):
                certain = certain or name
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
    return f"line {line}: nothing in it looks like a value"


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
