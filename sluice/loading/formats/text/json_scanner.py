"""Reads the values of a JSON document one after another, without the whole document in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import IO, Any, Final

from sluice.loading.errors import RefusedFile
from sluice.loading.reading.source import Member
from sluice.loading.showing import content

_PIECE: Final = 64 * 1024
_BLANK: Final = " \t\r\n"
_CUT_OFF: Final = 2
"""A number that is cut off goes on for so many characters behind what is a number already."""


class DuplicateKey(ValueError):
    """An object has the same key twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DuplicateKey(f"the key {content(twice[:100])!r} stands twice in one object: which value counts?")
    return found


def _no_number(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON: write null, or leave the key out")


DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_float=Decimal, parse_constant=_no_number)
"""Decodes JSON; numbers with a fraction become `Decimal`, with the digits with which they were written."""


class Scanner:
    """Reads JSON text from its beginning; no value may be longer than the budget's ``line_bytes``."""

    def __init__(self, text: IO[str], member: Member) -> None:
        self._text = text
        self._member = member
        self._buffer = ""
        self._at = 0
        self._ended = False
        self.line = 1
        self._column = 1

    def peek(self) -> str:
        """Return the next non-blank character without taking it; empty at the end."""
        while True:
            while self._at < len(self._buffer):
                character = self._buffer[self._at]
                if character not in _BLANK:
                    return character
                self._skip(1)
            if not self._fill():
                return ""

    def take(self, wanted: str) -> bool:
        """Take the next character if it is ``wanted``; return whether it was."""
        found = self.peek() == wanted
        if found:
            self._skip(1)
        return found

    def expect(self, wanted: str) -> None:
        """Take ``wanted``. Raises `RefusedFile` for anything else."""
        found = self.peek()
        if not self.take(wanted):
            what = (
                f"{content(found)!r} stands where {wanted!r} is expected" if found else f"it ends before a {wanted!r}"
            )
            raise self._refused(what)

    def value(self) -> tuple[int, Any]:
        """Return the next value and the line on which it begins. Raises `RefusedFile`."""
        self.peek()
        line = self.line
        while True:
            try:
                value, end = DECODER.raw_decode(self._buffer, self._at)
            except json.JSONDecodeError as error:
                ahead = error.pos - self._at
                if not self._fill():
                    raise self._refused(error.msg, ahead) from error
                continue
            except RecursionError as error:
                raise self._refused("it nests its values too deeply") from error
            except ValueError as error:  # a duplicate key, a number of thousands of digits
                raise self._refused(str(error)) from error
            # Of a number cut off, as 1.5e+, the decoder takes what is one, as 1.5: only what stands behind it tells.
            near_end = isinstance(value, int | Decimal) and end + _CUT_OFF >= len(self._buffer)
            length = end - self._at
            if not near_end or not self._fill():
                self._skip(length)
                return line, value

    def elements(self) -> Iterator[tuple[int, Any]]:
        """Yield the elements of the array that begins here, each with its line."""
        self.expect("[")
        if self.take("]"):
            return
        while True:
            yield self.value()
            if not self.take(","):
                self.expect("]")
                return

    def enter(self, key: str) -> None:
        """Go to the value of ``key`` in the object that begins here. Raises `RefusedFile` if there is none."""
        self.expect("{")
        while self.peek() == '"':
            _, found = self.value()
            self.expect(":")
            if found == key:
                return
            self.value()
            if not self.take(","):
                break
        raise self._refused(f"the document has no key {key!r}, which the contract names as its `property`")

    def leave(self, key: str) -> None:
        """Go from the end of the value of ``key`` to the end of the document; refuse a second such key."""
        while self.take(","):
            _, found = self.value()
            if found == key:
                raise self._refused(f"the key {key!r} stands twice in one object: which value counts?")
            self.expect(":")
            self.value()
        self.expect("}")
        self.end()

    def end(self) -> None:
        """Raise `RefusedFile` if anything follows."""
        found = self.peek()
        if found:
            raise self._refused(f"{content(found)!r} follows where the document has ended")

    def _skip(self, count: int) -> None:
        self.line, self._column = self._place(count)
        self._at += count

    def _place(self, ahead: int) -> tuple[int, int]:
        """Return line and column, from 1, ``ahead`` characters from here."""
        end = self._at + ahead
        lines = self._buffer.count("\n", self._at, end)
        if not lines:
            return self.line, self._column + ahead
        return self.line + lines, end - self._buffer.rfind("\n", self._at, end)

    def _fill(self) -> bool:
        """Read more text: as much as is not taken yet, so that a long value is not scanned again and again."""
        if self._ended:
            return False
        waiting = len(self._buffer) - self._at
        if waiting > self._member.budget.line_bytes:
            self._member.budget.exceeded("line_bytes", f"{self._member.label}, line {self.line}: a value is too long")
        piece = self._text.read(max(_PIECE, waiting))
        self._ended = not piece
        self._buffer = self._buffer[self._at :] + piece
        self._at = 0
        return bool(piece)

    def _refused(self, what: str, ahead: int = 0) -> RefusedFile:
        line, column = self._place(ahead)
        where = f"{self._member.label}, line {line}, character {column}"
        return RefusedFile(f"{where}: not JSON that can be read ({what})")
