"""Moves or deletes a file after its run: never another version than the one that ran.

The file is first renamed in its folder to a name made of its event, and checked there, where nobody replaces it.
After a crash at any step, the next call with the same arguments completes or undoes the move.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from services.common.file_version import Version
from services.listeners.files.archiving.rename import rename_new, sync_directory
from services.listeners.files.folder import OWN, Folder
from services.listeners.files.names import SIDECAR
from services.listeners.files.scanning.writers import Writers, held_off

_LONGEST_NAME: Final = 255
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_PACKED: Final = frozenset({b".gz", b".zst", b".bz2", b".xz"})
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


class Mover:
    """Archives files of one watch. Its methods block for the time of the system calls."""

    def __init__(self, folder: Folder, *, checkpoint: Callable[[str], None] = lambda _: None) -> None:
        self._folder = folder
        self._checkpoint = checkpoint

    def move(self, path: bytes, version: Version, event_id: str, into: bytes, sidecar: bytes | None = None) -> PutAway:
        """Move the file at ``path``, if it is still ``version``, to the same path below ``into``.

        A ``sidecar`` is written beside the file. Where the name exists, a number is added to it.
        """
        moving = self._moving(path, event_id)
        try:
            if not os.path.lexists(moving):
                fate = self._is_there(path, version)
                if fate is MoveResult.GONE and (found := self._already(path, version, event_id, into)) is not None:
                    return PutAway(MoveResult.MOVED, found)
                if fate is not None:
                    return PutAway(fate)
            target = self._reserve(path, event_id, into, sidecar)
        except OSError as error:
            return _failed(error)
        self._checkpoint("reserved")
        done = self._take(path, version, moving)
        if done is None:
            self._checkpoint("staged")
            done = self._place(path, moving, target, event_id)
        if done.fate is not MoveResult.MOVED and sidecar is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._sidecar_of(target))
        self._checkpoint("moved")
        return done

    def delete(self, path: bytes, version: Version, event_id: str) -> PutAway:
        """Delete the file at ``path``, if it is still ``version``."""
        moving = self._moving(path, event_id)
        done = self._take(path, version, moving)
        if done is not None:
            return done
        self._checkpoint("staged")
        try:
            os.unlink(moving)
        except OSError as error:
            self._give_back(path, moving)
            return _failed(error)
        sync_directory(os.path.dirname(moving))
        self._checkpoint("moved")
        return PutAway(MoveResult.MOVED)

    def is_other(self, path: bytes, version: Version) -> bool:
        """Whether another version than ``version`` lies at ``path``."""
        return self._is_there(path, version) is MoveResult.CHANGED

    def drop_marker(self, marker: bytes, version: str) -> None:
        """Delete a used marker, unless it was written again since."""
        absolute = self._folder.absolute(marker)
        with contextlib.suppress(OSError):
            if str(Version.of(os.lstat(absolute))) == version:
                os.unlink(absolute)

    def _moving(self, path: bytes, event_id: str) -> bytes:
        directory = os.path.dirname(self._folder.absolute(path))
        return directory + b"/" + _MOVING + event_id.encode()

    def _is_there(self, path: bytes, version: Version) -> MoveResult | None:
        try:
            found = os.lstat(self._folder.absolute(path))
        except (FileNotFoundError, NotADirectoryError):
            return MoveResult.GONE
        return None if stat.S_ISREG(found.st_mode) and Version.of(found) == version else MoveResult.CHANGED

    def _take(self, path: bytes, version: Version, moving: bytes) -> PutAway | None:
        """Rename the file to ``moving`` and check its version; None if it is the expected one."""
        absolute = self._folder.absolute(path)
        try:
            if not os.path.lexists(moving):
                descriptor = os.open(absolute, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    with held_off(descriptor) as writers:
                        if writers is Writers.SOME:
                            return PutAway(MoveResult.BUSY)
                        if Version.of(os.fstat(descriptor)) != version:
                            return PutAway(MoveResult.CHANGED)
                        os.rename(absolute, moving)
                finally:
                    os.close(descriptor)
            if Version.of(os.lstat(moving)) == version:
                return None
        except (FileNotFoundError, NotADirectoryError):
            return PutAway(MoveResult.GONE)
        except OSError as error:
            return PutAway(MoveResult.CHANGED) if error.errno == errno.ELOOP else _failed(error)
        self._give_back(path, moving)  # the file was replaced between the check and the rename
        return PutAway(MoveResult.CHANGED)

    def _place(self, path: bytes, moving: bytes, target: bytes, event_id: str) -> PutAway:
        absolute = self._folder.absolute(target)
        try:
            try:
                rename_new(moving, absolute)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                _copy(moving, absolute, self._draft(target, event_id))
                os.unlink(moving)
        except FileExistsError:
            self._give_back(path, moving)
            return PutAway(MoveResult.BUSY, reason="the name was taken meanwhile")
        except OSError as error:
            self._give_back(path, moving)
            return _failed(error)
        sync_directory(os.path.dirname(absolute))
        sync_directory(os.path.dirname(moving))
        return PutAway(MoveResult.MOVED, target)

    def _give_back(self, path: bytes, moving: bytes) -> None:
        """Undo `_take`. If the name exists again by now, the file gets another."""
        for name in _candidates(path):
            try:
                rename_new(moving, self._folder.absolute(name))
            except FileExistsError:
                continue
            except OSError:
                pass
            return

    def _reserve(self, path: bytes, event_id: str, into: bytes, sidecar: bytes | None) -> bytes:
        """Return a free path below ``into``, with its directory made and its sidecar, if any, written."""
        wanted = into + b"/" + path
        make_folders(os.path.dirname(self._folder.absolute(wanted)))
        readers = self._readers(path, event_id)
        for name in _candidates(wanted):
            beside = self._sidecar_of(name)
            if sidecar is not None and _is_of(beside, event_id):
                return name  # an earlier call came to this step
            if os.path.lexists(self._folder.absolute(name)):
                continue
            if sidecar is None or _write_new(beside, sidecar, self._draft(name, event_id), readers):
                return name
        raise FileExistsError(errno.EEXIST, "every name that can be made from it is taken", wanted)

    def _readers(self, path: bytes, event_id: str) -> int:
        """Return the mode of the sidecar: whoever may read the file may read why it failed."""
        for place in (self._folder.absolute(path), self._moving(path, event_id)):
            with contextlib.suppress(OSError):
                return (stat.S_IMODE(os.lstat(place).st_mode) & 0o444) | 0o600
        return 0o600

    def _already(self, path: bytes, version: Version, event_id: str, into: bytes) -> bytes | None:
        """Return where an earlier call has moved the file, None if it has not."""
        wanted = into + b"/" + path
        for name in _candidates(wanted):
            try:
                found = os.lstat(self._folder.absolute(name))
            except OSError:
                return None
            if Version.of(found) == version or _is_of(self._sidecar_of(name), event_id):
                return name
        return None

    def _draft(self, target: bytes, event_id: str) -> bytes:
        return os.path.dirname(self._folder.absolute(target)) + b"/" + _DRAFT + event_id.encode()

    def _sidecar_of(self, target: bytes) -> bytes:
        directory, name = os.path.split(self._folder.absolute(target))
        return directory + b"/" + fit(name, SIDECAR)


def make_folders(path: bytes) -> None:
    """Make the folder and its missing parents, each with the permissions of its own parent."""
    if os.path.isdir(path):
        return
    above = os.path.dirname(path)
    make_folders(above)
    try:
        os.mkdir(path, 0o700)
        os.chmod(path, stat.S_IMODE(os.stat(above).st_mode))
    except FileExistsError:
        if not os.path.isdir(path):
            raise


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


def _candidates(path: bytes) -> Iterator[bytes]:
    """Yield the path itself, then ``a~2.csv``, ``a~3.csv`` and so on, or ``a~2.csv.gz`` before two suffixes."""
    yield path
    directory, slash, name = path.rpartition(b"/")
    stem, suffix = os.path.splitext(name)
    if suffix.lower() in _PACKED:
        stem, inner = os.path.splitext(stem)
        suffix = inner + suffix
    for number in range(2, 10_000):
        yield directory + slash + fit(stem, b"~%d" % number + suffix[-64:])


def _write_new(path: bytes, text: bytes, draft: bytes, mode: int) -> bool:
    """Write a file atomically; false if it exists already."""
    with open(draft, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        rename_new(draft, path)
    except FileExistsError:
        os.unlink(draft)
        return False
    return True


def _is_of(sidecar: bytes, event_id: str) -> bool:
    try:
        with open(sidecar, "rb") as file:
            return b'"%s"' % event_id.encode() in file.read(1024 * 1024)
    except OSError:
        return False


def _copy(source: bytes, target: bytes, draft: bytes) -> None:
    """Copy across file systems: atomically, with the same times."""
    try:
        shutil.copyfile(source, draft)
        shutil.copystat(source, draft)
        with open(draft, "rb") as file:
            os.fsync(file.fileno())
        rename_new(draft, target)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise


def _failed(error: OSError) -> PutAway:
    fate = MoveResult.FULL if error.errno in _FULL else MoveResult.DENIED
    return PutAway(fate, reason=error.strerror or str(error))
