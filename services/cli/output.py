"""Printing for people and for programs."""

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
"""Columns of a terminal that has room for more than the essential ones."""

GOOD, BAD, BUSY, WAITS = "green", "red", "cyan", "yellow"
_COLOURS: Final = {
    **dict.fromkeys(("completed", "done", "applied", "healthy", "ready", "ok", "yes", "new"), GOOD),
    **dict.fromkeys(("failed", "crashed", "rejected", "unknown-run", "expired", "timedout", "fail", "no"), BAD),
    **dict.fromkeys(("running", "pending", "retrying", "resuming", "received", "scheduled"), BUSY),
    **dict.fromkeys(("paused", "suspended", "buffered", "waiting", "late", "awaitingretry", "warn", "degraded"), WAITS),
    **dict.fromkeys(("cancelled", "cancelling"), "magenta"),
}
_COLOURED: Final = frozenset({"state", "outcome", "ready", "grade"})
"""Columns with states."""


def show_json(value: Any) -> None:
    """One JSON document on standard output; times in ISO 8601, ids as strings. It loses nothing and hides nothing."""
    print(in_json(json.dumps(value, indent=2, ensure_ascii=False, default=_plain)))


def show_json_line(value: Any) -> None:
    """`show_json` on one line, at once: for what goes on."""
    print(in_json(json.dumps(value, ensure_ascii=False, default=_plain)), flush=True)


def show_yaml(value: Any) -> None:
    """One YAML document on standard output."""
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
    """A listing: an array of whole objects with ``as_json``, else a table of ``columns`` (``empty`` if there are none).

    The table fits the terminal, or 80 columns where there is none; only its last column wraps. It has the columns of
    ``narrow``, if they are given, where there is less room than `WIDE`. Ids are cut to what tells them apart.
    """
    if as_json:
        show_json(list(rows))
    elif not rows:
        say(empty or "nothing to show")
    else:
        print(table_of(rows, columns, narrow=narrow).text())


def table_of(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, narrow: Sequence[str] = ()) -> Table:
    """The table of a listing, as `show_rows` prints it."""
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
    """A line on standard output."""
    print(indent + visible(text))


def show_script(text: str) -> None:
    """What a shell reads as it is, all of it ours."""
    print(text)


def show_title(text: str) -> None:
    """The heading of what follows, after an empty line."""
    print(f"\n{visible(text)}")


def show_fields(fields: Mapping[str, Any]) -> None:
    """One thing, a line a field; the fields of a mapping, and the elements of a list of mappings, have their own."""
    width = max((len(name) for name in fields), default=0)
    for name, value in fields.items():
        label = name.replace("_", " ")
        for line in _lines(value):
            show_line(f"{label:<{width}}  {line}")
            label = ""


def say(text: str) -> None:
    """A sentence to the person, on standard error, so that standard output stays data; further lines are indented."""
    print(paragraph(redacted(text)), file=sys.stderr)


def say_json(value: Any) -> None:
    """One JSON object on standard error."""
    print(in_json(json.dumps(value, ensure_ascii=False, default=_plain)), file=sys.stderr)


def show_progress(done: int, total: int) -> None:
    """How far the work has come, on a terminal, in the same line each time."""
    if sys.stderr.isatty():
        print(f"\r{done} of {total}", end="\n" if done >= total else "", file=sys.stderr, flush=True)


def size_text(size: float | None) -> str:
    """Bytes as people read them."""
    if size is None:
        return "-"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:  # noqa: PLR2004 - the next unit
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def clear_screen() -> None:
    """On a terminal, go on from the top of an empty screen; what scrolled out of it before stays."""
    if sys.stdout.isatty():
        print("\x1b[H\x1b[2J", end="")


def warn(text: str) -> None:
    """A sentence that nobody should overlook: red on a terminal."""
    red, plain = ("\x1b[1;31m", "\x1b[0m") if sys.stderr.isatty() and not os.environ.get("NO_COLOR") else ("", "")
    print(f"{red}{paragraph(redacted(text))}{plain}", file=sys.stderr)


def _lines(value: Any) -> list[str]:
    """A field's value, on one line or several."""
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
    """A value within another one: JSON where it has an inside itself."""
    if isinstance(value, list | tuple | dict):
        return json.dumps(value, ensure_ascii=False, default=_plain)
    return _text(value)


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else str(value)
