"""The longest text in the dictionary of a column of a Parquet file, known before the texts are put in its places.

A dictionary with one large text can stand for millions of copies of it, and neither the file's index nor its statistics
say so. The page with the dictionary comes first in its part of the file, with a header in Thrift's compact form.
"""

from __future__ import annotations

import os
import struct
from io import BufferedIOBase
from typing import Any, Final

import pyarrow as pa

from sluice.loading.reading.source import Member

_DICTIONARY_PAGE: Final = b"\x15\x04"
"""How the header of such a page begins: the first field, a small integer, is 2."""
_HEADER_BYTES: Final = 4096
_CODECS: Final = {"SNAPPY": "snappy", "GZIP": "gzip", "ZSTD": "zstd", "BROTLI": "brotli", "LZ4": "lz4_raw"}


def longest_in_dictionary(stream: BufferedIOBase, chunk: Any, member: Member) -> int:
    """Bytes of the longest entry, for a column chunk of texts; 0 where there is no dictionary.

    Where the page cannot be taken apart here, the length of all entries together. Raises `OverBudget` for a dictionary
    that is larger than ``block_bytes``.
    """
    start = chunk.data_page_offset
    if chunk.dictionary_page_offset:
        start = min(start, chunk.dictionary_page_offset)
    if start < 0:
        return int(chunk.total_uncompressed_size)
    stream.seek(start, os.SEEK_SET)
    beginning = stream.read(_HEADER_BYTES)
    if not beginning.startswith(_DICTIONARY_PAGE):
        return 0
    try:
        header, length = _thrift_struct(beginning, 0)
        unpacked, packed = header[2], header[3]
    except (KeyError, IndexError, RecursionError):
        return int(chunk.total_uncompressed_size)
    if unpacked < 0 or not 0 <= packed <= chunk.total_compressed_size:
        return int(chunk.total_uncompressed_size)
    member.budget.check("block_bytes", unpacked, f"{member.label} has a dictionary of {unpacked} bytes")
    stream.seek(start + length, os.SEEK_SET)
    page = stream.read(packed)
    try:
        if chunk.compression != "UNCOMPRESSED":
            page = pa.decompress(page, unpacked, _CODECS[chunk.compression], asbytes=True)
        return _longest(page)
    except (KeyError, struct.error, pa.ArrowException, OSError):
        return int(unpacked)


def _longest(page: bytes) -> int:
    """Of entries that each have their length before them."""
    at = longest = 0
    while at < len(page):
        (length,) = struct.unpack_from("<I", page, at)
        longest = max(longest, length)
        at += 4 + length
    return longest


def _thrift_struct(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """The fields of a struct in Thrift's compact form, and where it ends. Raises `KeyError` for others."""
    fields: dict[int, Any] = {}
    number = 0
    while head := data[at]:
        at += 1
        kind = head & 0x0F
        if head >> 4:
            number += head >> 4
        else:
            number, at = _thrift_integer(data, at)
        if kind in {1, 2}:
            fields[number] = kind == 1
        elif kind in {4, 5, 6}:
            fields[number], at = _thrift_integer(data, at)
        elif kind == 12:  # noqa: PLR2004 - a struct
            fields[number], at = _thrift_struct(data, at)
        else:
            raise KeyError(kind)
    return fields, at + 1


def _thrift_integer(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return (value >> 1) ^ -(value & 1), at
