"""Finds the longest text in the dictionary of a Parquet column, before the texts are copied to their places.

A dictionary with one large text can stand for millions of copies of it, and neither the file's index nor its statistics
show that. The page with the dictionary comes first in the column chunk, with a header of its own.
"""

from __future__ import annotations

import os
import struct
from io import BufferedIOBase
from typing import Final

import pyarrow as pa

from sluice.loading.formats.columnar.parquet_index import Chunk, thrift_struct
from sluice.loading.reading.source import Member

_DICTIONARY_PAGE: Final = b"\x15\x04"
"""The beginning of such a page's header: its first field, a small integer, is 2."""
_HEADER_BYTES: Final = 4096
_CODECS: Final = {1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}


def longest_in_dictionary(stream: BufferedIOBase, chunk: Chunk, member: Member) -> int:
    """Return the bytes of the longest entry, for a column chunk of texts; 0 if there is no dictionary.

    If the page cannot be parsed here, the length of all entries together is returned. Raises `OverBudget` for a
    dictionary that is larger than ``block_bytes``.
    """
    if chunk.start < 0:
        return chunk.unpacked
    stream.seek(chunk.start, os.SEEK_SET)
    beginning = stream.read(_HEADER_BYTES)
    if not beginning.startswith(_DICTIONARY_PAGE):
        return 0
    try:
        header, length = thrift_struct(beginning, 0)
        unpacked, packed = int(header[2]), int(header[3])
    except (KeyError, IndexError, TypeError, RecursionError):
        return chunk.unpacked
    if unpacked < 0 or not 0 <= packed <= chunk.packed:
        return chunk.unpacked
    member.budget.check("block_bytes", unpacked, f"{member.label} has a dictionary of {unpacked} bytes")
    stream.seek(chunk.start + length, os.SEEK_SET)
    page = stream.read(packed)
    try:
        if chunk.codec:
            page = pa.decompress(page, unpacked, _CODECS[chunk.codec], asbytes=True)
        return _longest(page)
    except (KeyError, struct.error, pa.ArrowException, OSError):
        return unpacked


def _longest(page: bytes) -> int:
    """Return the length of the longest entry; each has its length before it."""
    at = longest = 0
    while at < len(page):
        (length,) = struct.unpack_from("<I", page, at)
        longest = max(longest, length)
        at += 4 + length
    return longest
