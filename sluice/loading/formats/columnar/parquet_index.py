"""Reads the index of a Parquet file without Arrow.

Arrow's Python ends the process if one part of a damaged index contradicts another, while its reader raises an error.
The index is at the end of the file, in Thrift's compact form.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any, Final

from sluice.loading.errors import RefusedFile

_TAIL: Final = struct.Struct("<I4s")
_LONG_LIST: Final = 15
_MAGIC: Final = b"PAR1"
_PIECE_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Chunk:
    """A column chunk: the values of one column in one row group."""

    codec: int
    values: int
    unpacked: int
    """Size in bytes when unpacked."""
    packed: int
    start: int
    """Its beginning in the file, in bytes."""
    end: int
    """The end of it and of its own indexes, as far as the index of the file says."""


@dataclass(frozen=True, slots=True)
class RowGroup:
    """A row group: some rows of the file."""

    chunks: tuple[Chunk, ...]
    unpacked: int
    rows: int


def row_groups(stream: BufferedIOBase, columns: int, label: str) -> list[RowGroup]:
    """Return the row groups of a file whose index Arrow has read; each has as many chunks as there are ``columns``.

    Raises `RefusedFile` for a damaged index.
    """
    stream.seek(-_TAIL.size, os.SEEK_END)
    length, _ = _TAIL.unpack(stream.read(_TAIL.size))
    index = stream.seek(-_TAIL.size - length, os.SEEK_END)
    try:
        found, _ = thrift_struct(stream.read(length), 0)
        groups = [RowGroup(tuple(map(_chunk, one[1])), one[2], one[3]) for one in found.get(4, ())]
    except (KeyError, IndexError, TypeError, RecursionError, struct.error) as error:
        raise RefusedFile(f"{label} is no readable Parquet file: its index is damaged") from error
    if any(len(one.chunks) != columns or one.rows < 0 for one in groups):
        raise RefusedFile(f"{label} is no readable Parquet file: its index names other columns for some of its rows")
    end = max((chunk.end for one in groups for chunk in one.chunks), default=len(_MAGIC))
    if end < index and _joint(stream):
        raise RefusedFile(
            f"{label} holds several files, one behind the other, and Parquet reads one of them: send them one by one"
        )
    return groups


def _joint(stream: BufferedIOBase) -> bool:
    """Return whether one Parquet file begins where another one ends."""
    stream.seek(0)
    before = b""
    while piece := stream.read(_PIECE_BYTES):
        if 2 * _MAGIC in before + piece:
            return True
        before = piece[-2 * len(_MAGIC) :]
    return False


def _chunk(found: dict[int, Any]) -> Chunk:
    said = found[3]  # its own fields
    start = min(said[9], said.get(11) or said[9])
    parts = ((start, said[7]), (found.get(4), found.get(5)), (found.get(6), found.get(7)), (said.get(14), said.get(15)))
    end = max((at or 0) + (length or 0) for at, length in parts)
    return Chunk(said[4], said[5], said[6], said[7], start, end)


def thrift_struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """Return the fields of a struct by number, and where it ends. Raises `KeyError` or `IndexError` if it is none."""
    fields: dict[int, Any] = {}
    number = 0
    while head := data[at]:
        at += 1
        if head >> 4:
            number += head >> 4
        else:
            number, at = _integer(data, at)
        kind = head & 0x0F
        if kind in {1, 2}:
            fields[number] = kind == 1
        else:
            fields[number], at = _READ[kind](data, at)
    return fields, at + 1


def _integer(data: bytes, at: int) -> tuple[int, int]:
    value, at = _length(data, at)
    return (value >> 1) ^ -(value & 1), at


def _length(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return value, at


def _text(data: bytes, at: int) -> tuple[bytes, int]:
    length, at = _length(data, at)
    return data[at : at + length], at + length


def _list(data: bytes, at: int) -> tuple[list[Any], int]:
    count, kind = data[at] >> 4, data[at] & 0x0F
    at += 1
    if count == _LONG_LIST:
        count, at = _length(data, at)
    items = []
    for _ in range(count):
        item, at = _READ[kind](data, at)
        items.append(item)
    return items, at


def _byte(data: bytes, at: int) -> tuple[int, int]:
    return data[at], at + 1


def _double(_data: bytes, at: int) -> tuple[None, int]:
    return None, at + 8


_READ: Final = {
    1: _byte, 2: _byte, 3: _byte, 4: _integer, 5: _integer, 6: _integer, 7: _double, 8: _text, 9: _list, 10: _list,
    12: thrift_struct,
}  # fmt: skip
"""How a value of each type is read; in lists a boolean has a byte."""
