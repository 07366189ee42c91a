"""Prints results on standard output and messages on standard error, for people or as JSON.

Everything that came from outside (file names, messages, ids) is printed with its control and hidden characters made
visible, so that no event can move the cursor or hide text on the operator's terminal.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from events.redact import redacted
from events.short_ids import shortened
from services.cli.terminal.times import in_field, in_listing
from sluice.display import in_json, paragraph, visible

if TYPE_CHECKING:
    from services.cli.terminal.table import Table

WIDE: Final = 120
"""Width in characters from which a listing shows all of its columns."""

GOOD, BAD, BUSY, WAITS = "green", "red", "cyan", "yellow"
_COLOURS: Final = {
    **dict.fromkeys(("completed", "done", "applied", "healthy", "ready", "ok", "yes", "new"), GOOD),
    **dict.fromkeys(("failed", "crashed", "rejected", "unknown-run", "expired", "timedout", "fail", "no"), BAD),
    **dict.fromkeys(("running", "pending", "retrying", "resuming", "received", "scheduled"), BUSY),
    **dict.fromkeys(("paused", "suspended", "buffered", "waiting", "late", "awaitingretry", "warn", "degraded"), WAITS),
    **dict.fromkeys(("cancelled", "cancelling"), "magenta"),
}
_COLOURED: Final = frozenset({"state", "outcome", "ready", "grade"})
"""The columns whose words are coloured, and which are cut last."""


def show_json(value: Any) -> None:
    """Print one JSON document on standard output, whole: nothing is shortened. Times are in ISO 8601, ids strings."""
    print(in_json(json.dumps(value, indent=2, ensure_ascii=False, default=_plain)))


def show_json_line(value: Any) -> None:
    """Print one JSON document on one line and flush it, for commands that continue to print."""
    print(in_json(json.dumps(value, ensure_ascii=False, default=_plain)), flush=True)


def show_yaml(value: Any) -> None:
    """Print one YAML document on standard output."""
    from sluice.yaml_file import write_yaml

    print(write_yaml(value), end="")


def show_rows(
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    as_json: bool,
    empty: str = "",
    narrow: Sequence[str] = (),
) -> None:
    """Print a listing: with ``as_json`` an array of whole objects, otherwise a table of ``columns``.

    The table fits the terminal, or 80 characters without one; only its last column wraps. Below `WIDE` it has the
    columns ``narrow``, if they are given. Ids are shortened as far as they stay different. Without rows it prints
    ``empty``.
    """
    if as_json:
        show_json(list(rows))
    elif not rows:
        say(empty or "nothing to show")
    else:
        print(table_of(rows, columns, narrow=narrow).text())


def table_of(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, narrow: Sequence[str] = ()) -> Table:
    """Return the table of a listing, as `show_rows` prints it."""
    from services.cli.terminal.table import Table, width_of_output

    width = width_of_output()
    if narrow and width < WIDE:
        columns = narrow
    cells = {column: [_cell(row.get(column)) for row in rows] for column in columns}
    return Table(
        [visible(column.replace("_", " ")) for column in columns],
        [shortened(found) if name == "id" or name.endswith("_id") else found for name, found in cells.items()],
        width,
        [_COLOURS if column in _COLOURED else {} for column in columns],
        [column in _COLOURED or any(isinstance(row.get(column), datetime) for row in rows) for column in columns],
    )


def show_line(text: str, *, indent: str = "") -> None:
    """Print a line on standard output."""
    print(indent + visible(text))


def show_script(text: str) -> None:
    """Print text for a shell unchanged; none of it may come from outside."""
    print(text)


def show_title(text: str) -> None:
    """Print an empty line and a heading."""
    print(f"\n{visible(text)}")


def show_fields(fields: Mapping[str, Any]) -> None:
    """Print one record, a line for each field, and for each field of a mapping or element of a list in it."""
    width = max((len(name) for name in fields), default=0)
    for name, value in fields.items():
        label = name.replace("_", " ")
        for line in _lines(value):
            show_line(f"{label:<{width}}  {line}")
            label = ""


def say(text: str) -> None:
    """Print a sentence on standard error, so that standard output has only data; further lines are indented."""
    print(paragraph(redacted(text)), file=sys.stderr)


def say_json(value: Any) -> None:
    """Print one JSON object on standard error."""
    print(in_json(json.dumps(value, ensure_ascii=False, default=_plain)), file=sys.stderr)


def show_progress(done: int, total: int) -> None:
    """Show progress in one line that is overwritten; nothing if standard error is no terminal."""
    if sys.stderr.isatty():
        print(f"\r{done} of {total}", end="\n" if done >= total else "", file=sys.stderr, flush=True)


def size_text(size: float | None) -> str:
    """Return a number of bytes with a unit; `-` for None."""
    if size is None:
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:  # noqa: PLR2004 - the next unit
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def clear_screen() -> None:
    """Clear the screen if standard output is a terminal; the lines above it stay."""
    if sys.stdout.isatty():
        print("\x1b[H\x1b[2J", end="")


def warn(text: str) -> None:
    """Print a sentence on standard error, in red on a terminal unless NO_COLOR is set."""
    red, plain = ("\x1b[1;31m", "\x1b[0m") if sys.stderr.isatty() and not os.environ.get("NO_COLOR") else ("", "")
    print(f"{red}{paragraph(redacted(text))}{plain}", file=sys.stderr)


def _lines(value: Any) -> list[str]:
    """Return a field's value as one line or several."""
    match value:
        case datetime():
            return [in_field(value)]
        case {**fields} if fields:
            width = max(len(str(name)) for name in fields)
            return [f"{name!s:<{width}}  {_text(inner)}" for name, inner in fields.items()]
        case [{**_first}, *_more]:
            return [_text(one) for one in value]
        case _:
            return [_text(value)]


def _cell(value: Any) -> str:
    return visible(_text(value))


def _text(value: Any) -> str:
    match value:
        case None | [] | ():
            text = "-"
        case bool():
            text = "yes" if value else "no"
        case datetime():
            text = in_listing(value)
        case float():
            text = f"{value:g}"
        case {**fields}:
            text = ", ".join(f"{name}={_inner(inner)}" for name, inner in fields.items()) or "-"
        case [{**_first}, *_more]:
            text = "; ".join(_text(one) for one in value)
        case list() | tuple():
            text = ", ".join(_inner(one) for one in value)
        case _:
            text = str(value)
    return text


def _inner(value: Any) -> str:
    """Return a value inside another one: as JSON if it is a list or an object itself."""
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, ensure_ascii=False, default=_plain)
    return _text(value)


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else str(value)
