"""A table that fits the terminal: only its last column wraps, and ids are cut to what tells them apart."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import rich.table
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from events.short_ids import shortened

NARROW: Final = 80
"""Columns of what is no terminal and does not say how wide it is."""

_GAP: Final = 2
_LAST: Final = 24
"""Columns that the last column gets before others are cut, if it needs them."""

_SHORTEST: Final = 10
"""To so many columns the others are cut, and not further."""


def width_of_output() -> int:
    """The columns that there are for standard output."""
    if sys.stdout.isatty():
        return Console().width
    given = os.environ.get("COLUMNS", "")
    return int(given) if given.isdecimal() and int(given) else NARROW


class Table:
    """Rows of text under headings; ``colours`` are those of the words of each column."""

    def __init__(
        self,
        headings: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        width: int,
        colours: Sequence[Mapping[str, str]],
        ids: Sequence[bool],
        whole: Sequence[bool],
    ) -> None:
        """``whole`` says which columns are not to be cut as long as others can be."""
        columns = [list(column) for column in zip(*rows, strict=True)]
        self._columns = [shortened(cells) if is_id else cells for cells, is_id in zip(columns, ids, strict=True)]
        self._headings = headings
        self._colours = colours
        self._width = width
        self._whole = whole

    def text(self) -> str:
        """For standard output: coloured on a terminal, unless NO_COLOR is set."""
        console = Console(width=self._width, highlight=False, markup=False, emoji=False)
        with console.capture() as printed:
            console.print(self.renderable())
        return "\n".join(line.rstrip() for line in printed.get().splitlines())

    def renderable(self) -> rich.table.Table:
        """The table for a console of rich."""
        table = rich.table.Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
        widths = list(self._widths())
        for heading, width in zip(self._headings[:-1], widths[:-1], strict=True):
            table.add_column(heading, width=width, no_wrap=True, overflow="ellipsis")
        table.add_column(self._headings[-1], width=widths[-1], overflow="fold")
        for row in zip(*self._columns, strict=True):
            cells = zip(row, self._colours, strict=True)
            table.add_row(*(Text(cell, style=colours.get(cell.lower(), "")) for cell, colours in cells))
        return table

    def _widths(self) -> Iterator[int]:
        wanted = [
            max(cell_len(heading), *map(cell_len, cells))
            for heading, cells in zip(self._headings, self._columns, strict=True)
        ]
        room = self._width - _GAP * (len(wanted) - 1)
        least = min(wanted[-1], _LAST)
        before = range(len(wanted) - 1)
        for cut in ([at for at in before if not self._whole[at]], list(before)):
            while sum(wanted[:-1]) + least > room:
                width, widest = max(((wanted[at], at) for at in cut), default=(0, 0))
                if width <= _SHORTEST:
                    break
                wanted[widest] -= 1
        yield from wanted[:-1]
        yield max(min(wanted[-1], room - sum(wanted[:-1])), 1)
