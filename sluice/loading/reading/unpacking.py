"""Unpacks files a piece at a time, however much they unpack to."""

from __future__ import annotations

import bz2
import io
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from sluice.loading.errors import RefusedFile

_PACKED_PIECE_BYTES: Final = 64 * 1024
_XZ_MEMORY_BYTES: Final = 128 * 1024 * 1024
"""Memory for xz: more than its highest preset needs (65 MiB); a header can ask for 4 GiB."""


class FileView(io.RawIOBase):
    """Reads an open file at a position of its own, so that several can read one file at the same time."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = os.preadv(self._descriptor, [buffer], self._at)
        self._at += count
        return count

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at}.get(whence)
        at = offset + (os.fstat(self._descriptor).st_size if start is None else start)
        if at < 0:
            raise OSError("a place before the beginning")
        self._at = at
        return at

    def tell(self) -> int:
        return self._at


@contextmanager
def complete_or_refused(label: str, packing: str | None) -> Iterator[None]:
    """Turn the libraries' errors for damaged packings into `RefusedFile`."""
    try:
        yield
    except (EOFError, OSError, NotImplementedError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk, not of the content
        raise RefusedFile(f"{label} is no complete {packing} file ({error}): make or send it again") from error


class _Gzip:
    """A gzip decompressor with the interface of those of `bz2` and `lzma`; it verifies length and checksum."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._stream.unconsumed_tail

    def decompress(self, data: bytes, count: int) -> bytes:
        return self._stream.decompress(self._stream.unconsumed_tail + data, count)


class _Streams(io.RawIOBase):
    """gzip, bzip2 or xz streams, one after another, unpacked a piece at a time.

    `gzip.GzipFile` would examine each of the zero bytes with which tapes and disks pad a file.
    """

    def __init__(self, view: FileView, make: Callable[[], Any]) -> None:
        super().__init__()
        self._view = view
        self._make = make
        self._stream = make()

    def read(self, count: int = -1, /) -> bytes:
        while True:
            given = b""
            if self._stream.eof:
                given = self._next_stream()
                if not given:
                    return b""
                self._stream = self._make()
            elif self._stream.needs_input:
                given = self._view.read(_PACKED_PIECE_BYTES) or b""
                if not given:
                    raise EOFError("it ends too early")
            piece: bytes = self._stream.decompress(given, count)
            if piece:
                return piece

    def _next_stream(self) -> bytes:
        """Return what follows the stream that has ended, without a padding of zeros."""
        given: bytes = self._stream.unused_data
        while True:
            found = given.lstrip(b"\0")
            if found:
                return found
            given = self._view.read(_PACKED_PIECE_BYTES) or b""
            if not given:
                return b""


def _xz() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_BYTES)


def _zstd(view: FileView) -> Any:
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(view, mode="r"), "zstd")


UNPACK: Final[dict[str, Callable[[FileView], Any]]] = {
    "gzip": lambda view: _Streams(view, _Gzip),
    "zstd": _zstd,
    "bzip2": lambda view: _Streams(view, bz2.BZ2Decompressor),
    "xz": lambda view: _Streams(view, _xz),
}
"""What makes a stream of the content, by the kind of packing."""
