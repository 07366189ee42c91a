"""A table that fits the terminal: its last column wraps, and the others are cut where they do not fit."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import rich.table
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

NARROW: Final = 80
"""Width in characters where standard output is no terminal and COLUMNS is not set."""

_GAP: Final = 2
_LAST: Final = 24
"""Characters that the last column gets, if it needs them, at the cost of the others."""

_SHORTEST: Final = 10
"""Characters below which no column is cut."""


def width_of_output() -> int:
    """Return the width of standard output in characters."""
    if sys.stdout.isatty():
        return Console().width
    given = os.environ.get("COLUMNS", "")
    return int(given) if given.isdecimal() and int(given) else NARROW


@dataclass(frozen=True)
class Table:
    """Columns of text under headings."""

    headings: Sequence[str]
    columns: Sequence[Sequence[str]]
    width: int
    """Width of the whole table, in characters."""
    colours: Sequence[Mapping[str, str]]
    """For each column, the colours of its words."""
    whole: Sequence[bool]
    """For each column, whether it is cut only after all others, as states and times are."""

    def text(self) -> str:
        """Return the table as text: coloured on a terminal, unless NO_COLOR is set."""
        console = Console(width=self.width, highlight=False, markup=False, emoji=False)
        with console.capture() as printed:
            console.print(self.renderable())
        return "\n".join(line.rstrip() for line in printed.get().splitlines())

    def renderable(self) -> rich.table.Table:
        """Return the table for a console of rich."""
        table = rich.table.Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
        widths = list(self._widths())
        for heading, width in zip(self.headings[:-1], widths[:-1], strict=True):
            table.add_column(heading, width=width, no_wrap=True, overflow="ellipsis")
        table.add_column(self.headings[-1], width=widths[-1], overflow="fold")
        for row in zip(*self.columns, strict=True):
            cells = zip(row, self.colours, strict=True)
            table.add_row(*(Text(cell, style=colours.get(cell.lower(), "")) for cell, colours in cells))
        return table

    def _widths(self) -> Iterator[int]:
        """Return the width of each column: the widest is cut first, until all fit."""
        wanted = [
            max(cell_len(heading), *map(cell_len, cells))
            for heading, cells in zip(self.headings, self.columns, strict=True)
        ]
        room = self.width - _GAP * (len(wanted) - 1)
        least = min(wanted[-1], _LAST)
        before = range(len(wanted) - 1)
        for cut in ([at for at in before if not self.whole[at]], list(before)):
            while sum(wanted[:-1]) + least > room:
                width, widest = max(((wanted[at], at) for at in cut), default=(0, 0))
                if width <= _SHORTEST:
                    break
                wanted[widest] -= 1
        yield from wanted[:-1]
        yield max(min(wanted[-1], room - sum(wanted[:-1])), 1)
