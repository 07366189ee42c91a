"""Divides a delimited text into blocks that end where a record ends."""

from __future__ import annotations

import io
from typing import Final

from sluice.budgets import Budget

BLOCK_BYTES: Final = 2 * 1024 * 1024
_WINDOW: Final = 4096
_END_OF_FILE: Final = b"\x1a"
"""Ctrl-Z, with which some old programs end a text."""


class Blocks:
    """Divides a text into blocks of about ``BLOCK_BYTES`` that hold whole records.

    It cuts at the last line end before which the number of ``quote`` characters is even. That is the end of a record
    unless such a character is inside an unquoted field; a caller that finds that reads on with `more`, and gives back
    what follows the record.
    """

    def __init__(self, stream: io.BufferedReader, budget: Budget, label: str, *, quote: bytes) -> None:
        self._stream = stream
        self._budget = budget
        self._label = label
        self._quote = quote
        self._piece_bytes = min(BLOCK_BYTES, budget.line_bytes)
        self._rest = b""
        self.line = 1
        """Number of the line with which the next block begins."""

    @property
    def at_end(self) -> bool:
        """Return whether nothing is left."""
        return not self._rest and not self._stream.peek(1)

    def skip_lines(self, count: int) -> None:
        """Skip the first ``count`` lines, or all if there are fewer."""
        while count:
            lines = self._rest.splitlines(keepends=True)
            whole = lines[:-1] if self._stream.peek(1) else lines
            if not whole:
                self.check_length(len(self._rest))
                if not self._read():
                    return
            taken = whole[:count]
            self.check_length(max(map(len, taken), default=0))
            self._rest = self._rest[sum(map(len, taken)) :]
            self.line += len(taken)
            count -= len(taken)

    def next(self) -> bytes:
        """Return the next block; empty at the end of the text."""
        while True:
            piece = b"" if len(self._rest) >= self._piece_bytes else self._stream.read(self._piece_bytes)
            self._rest += piece
            ended = not self._stream.peek(1)
            cut = len(self._rest) if ended else self._cut()
            if ended and self._rest.endswith(_END_OF_FILE):
                self._rest = self._rest[: -len(_END_OF_FILE)]
                cut = len(self._rest)
            if cut or ended:
                block, self._rest = self._rest[:cut], self._rest[cut:]
                self._check_first_record(block)
                return block
            self.check_length(len(self._rest))
            self._rest += self._stream.read(self._piece_bytes)

    def more(self) -> bytes:
        """Return what follows the block, for a record that does not end in it; empty at the end of the text."""
        piece, self._rest = self._rest or self._stream.read(self._piece_bytes), b""
        return piece

    def give_back(self, text: bytes) -> None:
        """Put ``text`` back, so that the next block begins with it."""
        self._rest = text + self._rest

    def _read(self) -> bytes:
        piece = self._stream.read(self._piece_bytes)
        self._rest += piece
        return piece

    def _cut(self) -> int:
        """Return where the last record ends that is certainly whole; 0 if there is none."""
        text = self._rest
        end = _last_line_end(text, len(text) - 1)  # what stands behind a CR that comes last is not known
        marks = text.count(self._quote, 0, end)
        while end and marks % 2:
            mark = text.rfind(self._quote, 0, end)
            before = _last_line_end(text, mark)
            marks -= text.count(self._quote, before, end)
            end = before
        return end

    def _check_first_record(self, block: bytes) -> None:
        """Check the length of the first record. Later ones begin in the same piece, which is no longer than allowed."""
        if len(block) > self._budget.line_bytes:
            line_end = b"\n" if b"\n" in block else b"\r"
            end = block.find(line_end)
            marks = block.count(self._quote, 0, max(end, 0))
            while end >= 0 and marks % 2:
                before, end = end, block.find(line_end, end + 1)
                marks += block.count(self._quote, before, max(end, 0))
            self.check_length(len(block) if end < 0 else end)

    def check_length(self, length: int, line: int | None = None) -> None:
        """Raise `OverBudget` for a record of more bytes than the budget allows."""
        self._budget.check("line_bytes", length, f"{self._label}, line {line or self.line} is too long")


def _last_line_end(text: bytes, before: int) -> int:
    """Return the position after the last LF up to ``before``, or the last CR ahead of it; 0 if there is none.

    The text is searched backwards in windows, because one of the two may be nowhere in it.
    """
    end = before + 1
    while end > 0:
        start = max(0, end - _WINDOW)
        found = max(text.rfind(b"\n", start, end), text.rfind(b"\r", start, min(end, before)))
        if found >= 0:
            return found + 1
        end = start
    return 0


def count_lines(text: bytes) -> int:
    """Return the number of line ends: CR, LF or both together."""
    if b"\r" not in text:
        return text.count(b"\n")
    return text.count(b"\n") + text.count(b"\r") - text.count(b"\r\n")
