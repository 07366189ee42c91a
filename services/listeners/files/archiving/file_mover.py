"""Moves or deletes a file after its run: never another version than the one that ran.

The file is first renamed in its folder to a name made of its event, and checked there, where nobody replaces it.
After a crash at any step, the next call with the same arguments completes or undoes the move.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from services.common.file_version import Version
from services.listeners.files.archiving.places import copy, write_new
from services.listeners.files.archiving.rename import FilePlace, rename_new, sync_directory
from services.listeners.files.folder import OWN, Folder
from services.listeners.files.names import SIDECAR
from services.listeners.files.scanning.writers import Writers, held_off

_LONGEST_NAME: Final = 255
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_PACKED: Final = frozenset({b".gz", b".zst", b".bz2", b".xz"})
_NO_DIRECTORY: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
_MOVING: Final = OWN + b"-moving-"
_DRAFT: Final = OWN + b"-draft-"


class MoveResult(Enum):
    """What became of a file that was to be archived."""

    MOVED = auto()
    """The file is at its target, also when an earlier call moved it."""
    GONE = auto()
    CHANGED = auto()
    """Another version has the file's name now, and stays there."""
    BUSY = auto()
    """A process has the file open for writing: try again later."""
    FULL = auto()
    DENIED = auto()


@dataclass(frozen=True, slots=True)
class PutAway:
    """The result; ``target`` is relative to the watch, ``reason`` the operating system's where something failed."""

    fate: MoveResult
    target: bytes | None = None
    reason: str = ""
    version: Version | None = field(default=None, compare=False)
    """Of the file at its target: a copy on another file system has another inode."""


class Mover:
    """Archives files of one watch. Its methods block for the time of the system calls.

    Directories are entered a step at a time: no link that somebody puts in the place of one leads out of the watch. The
    archive folder may be a link that this process's user or root has made.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def move(self, path: bytes, version: Version, event_id: str, into: bytes, sidecar: bytes | None = None) -> PutAway:
        """Move the file at ``path``, if it is still ``version``, to the same path below ``into``.

        A ``sidecar`` is written beside the file. Where the name exists, a number is added to it.
        """
        above, name = os.path.split(into + b"/" + path)
        try:
            with ExitStack() as stack:
                file = self._file(stack, path, event_id)
                fate = MoveResult.GONE if file is None else None if file.moving.exists() else file.is_there(version)
                if fate is MoveResult.GONE and (found := self._already(above, name, version, event_id)) is not None:
                    return PutAway(MoveResult.MOVED, found)
                if file is None or fate is not None:
                    return PutAway(fate or MoveResult.GONE)
                directory = stack.enter_context(self._folder.entered(above, make=True, own_links=True))
                target = _reserve(FilePlace(directory, name), event_id, sidecar, file.readers())
                done = file.take(version) or file.place(target, above + b"/" + target.name)
                if done.fate is not MoveResult.MOVED and sidecar is not None:
                    with contextlib.suppress(OSError):
                        target.beside(sidecar_of(target.name)).unlink()
                return done
        except OSError as error:
            return _failed(error)

    def delete(self, path: bytes, version: Version, event_id: str) -> PutAway:
        """Delete the file at ``path``, if it is still ``version``."""
        try:
            with ExitStack() as stack:
                file = self._file(stack, path, event_id)
                return PutAway(MoveResult.GONE) if file is None else file.take(version) or file.delete()
        except OSError as error:
            return _failed(error)

    def is_other(self, path: bytes, version: Version) -> bool:
        """Whether another version than ``version`` lies at ``path``; false where that cannot be seen."""
        try:
            with ExitStack() as stack:
                file = self._file(stack, path, "")
                return file is not None and file.is_there(version) is MoveResult.CHANGED
        except OSError:
            return False

    def drop_marker(self, marker: bytes, version: str) -> None:
        """Delete a used marker, unless it was written again since."""
        with contextlib.suppress(OSError), ExitStack() as stack:
            file = self._file(stack, marker, "")
            if file is not None and str(file.home.version()) == version:
                file.home.unlink()

    def _file(self, stack: ExitStack, path: bytes, event_id: str) -> _File | None:
        """Enter the file's directory; None where that is gone, or something else is in its place."""
        above, name = os.path.split(path)
        try:
            home = FilePlace(stack.enter_context(self._folder.entered(above)), name)
        except OSError as error:
            if error.errno in _NO_DIRECTORY:
                return None
            raise
        return _File(home, home.beside(_MOVING + event_id.encode()), _DRAFT + event_id.encode())

    def _already(self, above: bytes, first: bytes, version: Version, event_id: str) -> bytes | None:
        """Return where an earlier call has moved the file, None if it has not."""
        with contextlib.suppress(OSError), self._folder.entered(above, own_links=True) as directory:
            for name in _candidates(first):
                place = FilePlace(directory, name)
                if place.version() == version or is_of(place.beside(sidecar_of(name)), event_id):
                    return above + b"/" + name
        return None


@dataclass(frozen=True, slots=True)
class _File:
    """Where a file lies, where it is set aside, and the name under which a copy of it is written."""

    home: FilePlace
    moving: FilePlace
    draft: bytes

    def is_there(self, version: Version) -> MoveResult | None:
        try:
            found = self.home.stat()
        except FileNotFoundError:
            return MoveResult.GONE
        return None if stat.S_ISREG(found.st_mode) and Version.of(found) == version else MoveResult.CHANGED

    def readers(self) -> int:
        """Return the mode of the sidecar: whoever may read the file may read why it failed."""
        for place in (self.home, self.moving):
            with contextlib.suppress(OSError):
                return (stat.S_IMODE(place.stat().st_mode) & 0o444) | 0o600
        return 0o600

    def take(self, version: Version) -> PutAway | None:
        """Rename the file to ``moving`` and check its version; None if it is the expected one."""
        try:
            if not self.moving.exists():
                descriptor = self.home.open()
                try:
                    with held_off(descriptor) as writers:
                        if writers is Writers.SOME:
                            return PutAway(MoveResult.BUSY)
                        if Version.of(os.fstat(descriptor)) != version:
                            return PutAway(MoveResult.CHANGED)
                        directory = self.home.directory
                        os.rename(self.home.name, self.moving.name, src_dir_fd=directory, dst_dir_fd=directory)
                finally:
                    os.close(descriptor)
            if self.moving.version() == version:
                return None
        except FileNotFoundError:
            return PutAway(MoveResult.GONE)
        except OSError as error:
            return PutAway(MoveResult.CHANGED) if error.errno == errno.ELOOP else _failed(error)
        self.give_back()  # the file was replaced between the check and the rename
        return PutAway(MoveResult.CHANGED)

    def place(self, target: FilePlace, path: bytes) -> PutAway:
        """Move what was taken to ``target``, which is at ``path`` below the watch."""
        try:
            try:
                rename_new(self.moving, target)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                copy(self.moving, target, target.beside(self.draft))
                self.moving.unlink()
        except FileExistsError:
            self.give_back()
            return PutAway(MoveResult.BUSY, reason="the name was taken meanwhile")
        except OSError as error:
            self.give_back()
            return _failed(error)
        sync_directory(target.directory)
        sync_directory(self.home.directory)
        return PutAway(MoveResult.MOVED, path, version=target.version())

    def delete(self) -> PutAway:
        """Delete what was taken."""
        try:
            self.moving.unlink()
        except OSError as error:
            self.give_back()
            return _failed(error)
        sync_directory(self.home.directory)
        return PutAway(MoveResult.MOVED)

    def give_back(self) -> None:
        """Undo `take`. If the name exists again by now, the file gets another."""
        for name in _candidates(self.home.name):
            try:
                rename_new(self.moving, self.home.beside(name))
            except FileExistsError:
                continue
            except OSError:
                pass
            return


def _reserve(wanted: FilePlace, event_id: str, sidecar: bytes | None, mode: int) -> FilePlace:
    """Return the place, or one beside it, that is free, with its sidecar, if any, written."""
    for name in _candidates(wanted.name):
        place, note = wanted.beside(name), wanted.beside(sidecar_of(name))
        if sidecar is not None and is_of(note, event_id):
            return place  # an earlier call came to this step
        if place.exists():
            continue
        if sidecar is None or write_new(note, sidecar, wanted.beside(_DRAFT + event_id.encode()), mode):
            return place
    raise FileExistsError(errno.EEXIST, "every name that can be made from it is taken", wanted.name)


def sidecar_of(name: bytes) -> bytes:
    """Return the name of the sidecar of a file with this name."""
    return fit(name, SIDECAR)


def fit(name: bytes, suffix: bytes) -> bytes:
    """Return ``name`` and ``suffix`` as one file name; ``name`` is cut where the system's limit requires it."""
    room = _LONGEST_NAME - len(suffix)
    while len(name) > room:
        name = name[:room]
        with contextlib.suppress(UnicodeDecodeError):
            name.decode()
            break
        room -= 1
    return name + suffix


def _candidates(name: bytes) -> Iterator[bytes]:
    """Yield the name itself, then ``a~2.csv``, ``a~3.csv`` and so on, or ``a~2.csv.gz`` before two suffixes."""
    yield name
    stem, suffix = os.path.splitext(name)
    if suffix.lower() in _PACKED:
        stem, inner = os.path.splitext(stem)
        suffix = inner + suffix
    for number in range(2, 10_000):
        yield fit(stem, b"~%d" % number + suffix[-64:])


def is_of(sidecar: FilePlace, event_id: str) -> bool:
    """Whether it is a sidecar that names the event."""
    try:
        with os.fdopen(sidecar.open(), "rb") as file:
            regular = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            return regular and b'"%s"' % event_id.encode() in file.read(1024 * 1024)
    except OSError:
        return False


def _failed(error: OSError) -> PutAway:
    fate = MoveResult.FULL if error.errno in _FULL else MoveResult.DENIED
    return PutAway(fate, reason=error.strerror or str(error))
