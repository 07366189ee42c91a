"""Printing for people and for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from events.redact import redacted
from sluice.display import in_json, paragraph, visible
from sluice.yaml_file import write_yaml

WIDE: Final = 120
"""Columns of a terminal that has room for an id beside other things."""


def show_json(value: Any) -> None:
    """One JSON document on standard output; times in ISO 8601, ids as strings. It loses nothing and hides nothing."""
    print(in_json(json.dumps(value, indent=2, ensure_ascii=False, default=_plain)))


def show_yaml(value: Any) -> None:
    """One YAML document on standard output."""
    print(write_yaml(value), end="")


def show_rows(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    as_json: bool,
    empty: str = "",
    narrow: Sequence[str] = (),
) -> None:
    """A listing: an array of whole objects with ``as_json``, else a table of ``columns`` (``empty`` if there are none).

    On a terminal the table fits its width, and has only the columns of ``narrow``, if they are given, where that is
    less than `WIDE`; in a pipe no cell is cut.
    """
    if as_json:
        show_json(list(rows))
        return
    if not rows:
        say(empty or "nothing to show")
        return
    console = Console(width=None if sys.stdout.isatty() else 10_000, highlight=False, markup=False, emoji=False)
    if narrow and console.width < WIDE:
        columns = narrow
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(visible(column.replace("_", " ")), overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    console.print(table)


def show_line(text: str, *, indent: str = "") -> None:
    """A line on standard output."""
    print(indent + visible(text))


def show_title(text: str) -> None:
    """The heading of what follows, after an empty line."""
    print(f"\n{visible(text)}")


def show_fields(fields: Mapping[str, Any]) -> None:
    """One thing, a line a field."""
    width = max((len(name) for name in fields), default=0)
    for name, value in fields.items():
        show_line(f"{name.replace('_', ' '):<{width}}  {_cell(value)}")


def say(text: str) -> None:
    """A sentence to the person, on standard error, so that standard output stays data; further lines are indented."""
    print(paragraph(redacted(text)), file=sys.stderr)


def warn(text: str) -> None:
    """A sentence that nobody should overlook: red on a terminal."""
    red, plain = ("\x1b[1;31m", "\x1b[0m") if sys.stderr.isatty() else ("", "")
    print(f"{red}{paragraph(redacted(text))}{plain}", file=sys.stderr)


def local_time(moment: datetime) -> str:
    """A moment as a person at this machine reads it."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _cell(value: Any) -> str:
    return visible(_text(value))


def _text(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case datetime():
            return local_time(value)
        case str():
            return value
        case list() | tuple() | dict():
            return json.dumps(value, ensure_ascii=False, default=_plain) if value else "-"
        case _:
            return str(value)


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else str(value)
