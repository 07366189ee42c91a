"""Opens a dropped file: itself, its unpacked content, or the files of a ZIP archive."""

from __future__ import annotations

import io
import os
import posixpath
import shutil
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Final, Protocol

from sluice.budgets import Budget, Meter
from sluice.display import visible
from sluice.loading.errors import RefusedFile
from sluice.loading.reading.unpacking import UNPACK, FileView, complete_or_refused

_PIECE_BYTES: Final = 256 * 1024
_ENTRY_BYTES: Final = 1024
"""Bytes in the directory of a ZIP archive for each file that the budget allows."""
_NOT_DATA: Final = frozenset({".ds_store", "thumbs.db", "desktop.ini"})
_METHODS: Final = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""Methods that `zipfile` unpacks piece by piece; with the others the output of one call has no limit."""

BEGINNINGS: Final = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"PK\x03\x04": "ZIP",
    b"PK\x05\x06": "ZIP",
}
"""How a file is packed, by its first bytes."""
ENDINGS: Final = {".gz": "gzip", ".zst": "zstd", ".bz2": "bzip2", ".xz": "xz", ".zip": "ZIP"}
"""How a file is packed, by the ending of its name."""


class DataFile(Protocol):
    """A regular file that is open for reading, such as `sluice.OpenedFile`; its own position is not used."""

    def fileno(self) -> int:
        """Return its descriptor."""


@dataclass(frozen=True)
class Member:
    """One file of rows: the dropped one, unpacked if it is packed, or one file of an archive."""

    name: str
    """The file's name without the ending of its packing; for a file in an archive, its path there."""
    label: str
    """Its name in messages, safe to be shown: ``orders.zip/march.csv``."""
    packing: str | None
    """``gzip``, ``zstd``, ``bzip2``, ``xz`` or ``ZIP``; None if it is not packed."""
    size: int | None
    """Unpacked size in bytes, if it is known in advance."""
    packed_size: int
    """Size in bytes of the dropped file as it is on disk."""
    budget: Budget
    _view: Callable[[], FileView]
    _unpack: Callable[[FileView], Any] | None
    _read: list[FileView] = field(default_factory=list)

    def open(self) -> io.BufferedReader:
        """Open its bytes from the first one, independent of other streams of the same file.

        Reading raises `OverBudget` if more is unpacked than the budget allows, and `RefusedFile` for a damaged or
        truncated packing.
        """
        view = self._view()
        self._read[:] = [view]
        if self._unpack is None:
            return io.BufferedReader(view, _PIECE_BYTES)
        return io.BufferedReader(_Unpacked(view, self._unpack, self), _PIECE_BYTES)

    def open_seekable(self) -> io.BufferedIOBase:
        """Open it for formats that are read in any order: packed content is first written to a temporary file.

        That file is at most as large as the budget's ``unpacked_bytes``, and is gone as soon as it is closed.
        """
        if self._unpack is None:
            return self.open()
        copy = tempfile.TemporaryFile()  # noqa: SIM115 - the caller's, for as long as it reads
        try:
            with self.open() as stream:
                shutil.copyfileobj(stream, copy, _PIECE_BYTES)
            copy.seek(0)
        except BaseException:
            copy.close()
            raise
        return copy

    def beginning(self, count: int = 8) -> bytes:
        """Return its first ``count`` bytes."""
        with self.open() as stream:
            return stream.read(count)

    @property
    def share_read(self) -> float:
        """Return the share of the dropped file that the last opened stream has read, from 0 to 1."""
        return self._read[0].tell() / max(1, self.packed_size) if self._read else 0.0


class _Unpacked(io.RawIOBase):
    """The unpacked content of a file: counted, and with the library's errors as `RefusedFile`."""

    def __init__(self, view: FileView, unpack: Callable[[FileView], Any], member: Member) -> None:
        super().__init__()
        self._member = member
        self._meter = Meter(member.budget, member.packed_size, name=member.label)
        with complete_or_refused(member.label, member.packing):
            self._source = unpack(view)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with complete_or_refused(self._member.label, self._member.packing):
            piece: bytes = self._source.read(len(buffer))
        self._meter.add(len(piece))
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        if not self.closed:
            self._source.close()
        super().close()


def members(file: DataFile, name: str, budget: Budget) -> Iterator[Member]:
    """Yield the files of rows in ``file``, which is called ``name`` and must stay open: one, or those of a ZIP archive.

    How it is packed follows from the ending of the name, in any letter case, and must agree with the first bytes. The
    whole directory of an archive is checked before anything is read: archives in it, passwords and unusual methods are
    refused, and so is more than the budget allows. Files that operating systems add to archives (``__MACOSX``,
    ``.DS_Store``) are left out.

    Raises `RefusedFile` and `OverBudget`.
    """
    descriptor = file.fileno()
    label = visible(PurePath(name).name.encode(errors="surrogateescape").decode(errors="replace"))
    size = os.fstat(descriptor).st_size
    budget.check("unpacked_bytes", size, f"{label} has {size} bytes")
    stem, ending = posixpath.splitext(PurePath(name).name)
    packing = ENDINGS.get(ending.lower())
    if packing is None:
        yield Member(PurePath(name).name, label, None, size, size, budget, lambda: FileView(descriptor), None)
        return
    found = packing_of(os.pread(descriptor, 8, 0))
    if found != packing:
        what = "is empty" if not size else f"is {found or 'not packed'}"
        raise RefusedFile(f"{label} is named as a {packing} file and {what}: name it after what it is, or pack it")
    if packing == "ZIP":
        yield from _archive(descriptor, label, size, budget)
        return
    yield Member(stem, label, packing, None, size, budget, lambda: FileView(descriptor), UNPACK[packing])


def packing_of(beginning: bytes) -> str | None:
    """Return how a file with these first bytes is packed; None if it is not."""
    return next((packing for start, packing in BEGINNINGS.items() if beginning.startswith(start)), None)


def _archive(descriptor: int, label: str, size: int, budget: Budget) -> Iterator[Member]:
    _check_directory(descriptor, label, size, budget)
    view = FileView(descriptor)
    try:
        archive = zipfile.ZipFile(view)
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        raise RefusedFile(f"{label} is no complete ZIP file ({error}): make or send it again") from error
    entries = [entry for entry in archive.infolist() if not entry.is_dir() and not _is_not_data(entry.filename)]
    budget.check("members", len(entries), f"{label} holds {len(entries)} files")
    if not entries:
        raise RefusedFile(f"{label} holds no file")
    meter = Meter(budget, size, name=label)
    seen: set[str] = set()
    for entry in entries:
        where = f"{label}/{visible(entry.filename)}"
        if entry.filename in seen:
            raise RefusedFile(f"{where} is there twice: make the archive again with one of them")
        seen.add(entry.filename)
        if posixpath.splitext(entry.filename)[1].lower() in ENDINGS:
            raise RefusedFile(f"{where} is packed once more: put what is in it into the archive as it is")
        if entry.flag_bits & 1:
            raise RefusedFile(f"{where} is encrypted: make the archive without a password")
        if entry.compress_type not in _METHODS:
            raise RefusedFile(
                f"{where} is packed with method {entry.compress_type}, which is not supported: make the archive with "
                "Deflate, the usual method"
            )
        meter.add(entry.file_size)  # `zipfile` reads no more than the directory says
    for entry in entries:
        yield Member(
            entry.filename,
            f"{label}/{visible(entry.filename)}",
            "ZIP",
            entry.file_size,
            size,
            budget,
            lambda: view,
            lambda _view, entry=entry: archive.open(entry),  # type: ignore[misc]
        )


def _is_not_data(path: str) -> bool:
    directory, _, name = path.rpartition("/")
    return "__MACOSX" in directory.split("/") or name.lower() in _NOT_DATA or name.startswith("._")


def _check_directory(descriptor: int, label: str, size: int, budget: Budget) -> None:
    """Refuse a directory larger than the budget: `zipfile` reads it into memory, whatever size it declares."""
    tail = os.pread(descriptor, 66_000, max(0, size - 66_000))
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + 16 > len(tail):
        raise RefusedFile(f"{label} is no complete ZIP file (its directory is missing): make or send it again")
    (length,) = struct.unpack_from("<I", tail, at + 12)
    large = tail.rfind(b"PK\x06\x06", 0, at)
    if large >= 0 and large + 48 <= len(tail):
        (length,) = struct.unpack_from("<Q", tail, large + 40)
    if length > _ENTRY_BYTES * budget.members:
        budget.exceeded("members", f"the directory of {label} has {length} bytes")
