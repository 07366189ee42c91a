"""Computes the size of the record batches of an Arrow stream in memory, without unpacking them."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import IO, Any, Final

from sluice.loading.errors import RefusedFile
from sluice.loading.reading.source import Member

_BEGINNING: Final = 0xFFFFFFFF
_DICTIONARY: Final = 2
_BATCH: Final = 3
"""The kinds of messages whose bodies hold values."""
_PIECE_BYTES: Final = 1024 * 1024
_END: Final = struct.Struct("<i6s")
"""The end of a file: the length of its index, which is before it, and the name of the format."""
_MOST_PADDING: Final = 64


@dataclass(frozen=True, slots=True)
class _Table:
    """A table in a flatbuffer; its fields are numbered as in the schema of the format."""

    data: bytes
    at: int

    @classmethod
    def root(cls, data: bytes) -> _Table:
        return cls(data, struct.unpack_from("<I", data)[0])

    def _place(self, number: int) -> int | None:
        fields = self.at - struct.unpack_from("<i", self.data, self.at)[0]
        (length,) = struct.unpack_from("<H", self.data, fields)
        if 4 + 2 * number >= length:
            return None
        (offset,) = struct.unpack_from("<H", self.data, fields + 4 + 2 * number)
        return self.at + offset if offset else None

    def number(self, number: int, form: str) -> int:
        place = self._place(number)
        return 0 if place is None else int(struct.unpack_from(form, self.data, place)[0])

    def table(self, number: int) -> _Table | None:
        place = self._place(number)
        return None if place is None else _Table(self.data, place + struct.unpack_from("<I", self.data, place)[0])

    def structs(self, number: int, form: str) -> list[tuple[Any, ...]]:
        place = self._place(number)
        if place is None:
            return []
        place += struct.unpack_from("<I", self.data, place)[0]
        (count,) = struct.unpack_from("<I", self.data, place)
        size = struct.calcsize(form)
        end = place + 4 + count * size
        if end > len(self.data):
            raise struct.error("a list is longer than the message")
        return list(struct.iter_unpack(form, self.data[place + 4 : end]))


def check_messages(stream: IO[bytes], member: Member, *, is_file: bool) -> None:
    """Return if every record batch, and all dictionaries together, are within the budget's ``block_bytes``.

    The stream begins with the message of the schema; after its end only the index of a file may follow. Raises
    `OverBudget`, `RefusedFile`, and `struct.error` or `EOFError` for a damaged stream.
    """
    dictionaries = 0
    while message := _next(stream, member):
        kind = message.number(1, "<B")
        values = message.table(2)
        length = message.number(3, "<q")
        if kind == _DICTIONARY:
            values = values.table(1) if values is not None else None
        if length < 0:
            raise struct.error("a length is negative")
        weight = length
        if values is not None and kind in {_DICTIONARY, _BATCH} and values.table(3) is not None:
            weight = _unpacked_length(stream, values.structs(2, "<qq"), length)
        else:
            _pass_over(stream, length)
        dictionaries += weight if kind == _DICTIONARY else 0
        member.budget.check(
            "block_bytes", dictionaries + weight, f"{member.label} has a record batch of {weight} bytes"
        )
    rest = stream.read(member.budget.line_bytes)
    if is_file and len(rest) > _END.size:
        length, magic = _END.unpack(rest[-_END.size :])
        rest = rest[: -_END.size - length] if magic == b"ARROW1" else rest
        rest = b"" if len(rest) < _MOST_PADDING else rest
    if rest.strip(b"\0"):
        raise RefusedFile(
            f"{member.label} goes on where it has ended; several files seem to have been put one behind the other: "
            "send them one by one"
        )


def _next(stream: IO[bytes], member: Member) -> _Table | None:
    head = stream.read(8)
    if not head:
        return None
    beginning, length = struct.unpack("<II", head)
    if beginning != _BEGINNING:
        raise RefusedFile(f"{member.label} is no Arrow file, or one from before Arrow 0.15: write it anew")
    if not length:
        return None
    member.budget.check("line_bytes", length, f"{member.label} has a message of {length} bytes before its values")
    data = stream.read(length)
    if len(data) < length:
        raise EOFError("it ends too early")
    return _Table.root(data)


def _unpacked_length(stream: IO[bytes], buffers: list[tuple[int, int]], length: int) -> int:
    """Return the unpacked length that the buffers of a packed body declare."""
    at = total = 0
    for offset, size in sorted(buffers):
        if size < 8:  # noqa: PLR2004 - where the unpacked length stands
            continue
        _pass_over(stream, offset - at)
        (unpacked,) = struct.unpack("<q", stream.read(8))
        total += size if unpacked < 0 else unpacked
        at = offset + 8
    _pass_over(stream, length - at)
    return total


def _pass_over(stream: IO[bytes], count: int) -> None:
    if count < 0:
        raise struct.error("parts of a message overlap")
    if stream.seekable():
        stream.seek(count, 1)
        return
    while count:
        piece = stream.read(min(count, _PIECE_BYTES))
        if not piece:
            raise EOFError("it ends too early")
        count -= len(piece)
