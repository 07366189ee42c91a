"""Examines one file: its version, whether a process has it open for writing, its digest."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from typing import Final

from services.common.file_version import Version
from services.listeners.files.folder import Folder
from services.listeners.files.names import Marker
from services.listeners.files.scanning.writers import Writers, writers

_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NO_ATIME: Final = getattr(os, "O_NOATIME", 0)
_CHUNK: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Examined:
    """A file at one moment. ``digest`` is None where it was not requested, or is still to be read."""

    version: Version
    ctime_ns: int
    atime_ns: int
    writers: Writers
    digest: str | None = None
    marker: str | None = None
    """The version of the file's marker, if the marker exists."""

    @property
    def fingerprint(self) -> tuple[Version, int]:
        """Differs after any change of the file."""
        return self.version, self.ctime_ns


@dataclass(frozen=True, slots=True)
class UnreadableFile:
    """The file exists and cannot be examined; ``reason`` is the operating system's."""

    reason: str


class Examiner:
    """Examines the files of one watch. Its methods block for the time of the system calls, and never on a FIFO."""

    def __init__(self, folder: Folder, marker: Marker | None) -> None:
        self._folder = folder
        self._marker = marker
        self._digest_up_to = {
            "never": -1,
            "small": folder.settings.small_bytes,
            "always": _CHUNK * 4,  # larger files are digested in the background, by `digest`
        }[folder.source.sha256]

    def examine(self, path: bytes) -> Examined | UnreadableFile | None:
        """Examine the regular file at ``path``; None if there is none."""
        absolute = self._folder.absolute(path)
        try:
            descriptor = _open(absolute)
        except OSError as error:
            return _trouble(error)
        try:
            found = writers(descriptor)
            before = os.fstat(descriptor)
            if not stat.S_ISREG(before.st_mode):
                return None
            digest = None
            if 0 <= before.st_size <= self._digest_up_to and found is not Writers.SOME:
                digest = _digest(descriptor, before.st_size)
                after = os.fstat(descriptor)
                if Version.of(after) != Version.of(before):
                    before, digest, found = after, None, Writers.SOME
        except OSError as error:
            return _trouble(error)
        finally:
            os.close(descriptor)
        marker = self._marker_of(path) if self._marker is not None else None
        return Examined(Version.of(before), before.st_ctime_ns, before.st_atime_ns, found, digest, marker)

    def digest(self, path: bytes) -> tuple[Version, str] | None:
        """Return version and digest of a file of any size; None if the file changed meanwhile."""
        try:
            descriptor = _open(self._folder.absolute(path))
        except OSError:
            return None
        try:
            before = Version.of(os.fstat(descriptor))
            digest = _digest(descriptor, before.size)
            return (before, digest) if Version.of(os.fstat(descriptor)) == before else None
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def _marker_of(self, path: bytes) -> str | None:
        assert self._marker is not None  # noqa: S101 - for the type checker
        try:
            found = os.lstat(self._folder.absolute(self._marker.of(path)))
        except OSError:
            return None
        return str(Version.of(found)) if stat.S_ISREG(found.st_mode) else None


def _open(absolute: bytes) -> int:
    try:
        return os.open(absolute, _FLAGS | _NO_ATIME)
    except PermissionError:
        return os.open(absolute, _FLAGS)  # only the owner may read without changing the atime


def _digest(descriptor: int, size: int) -> str:
    digest = hashlib.sha256(os.read(descriptor, min(size + 1, _CHUNK)))
    while size >= _CHUNK and (chunk := os.read(descriptor, _CHUNK)):
        digest.update(chunk)
    return digest.hexdigest()


def _trouble(error: OSError) -> UnreadableFile | None:
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.ENAMETOOLONG, errno.ESTALE):
        return None
    return UnreadableFile(error.strerror or str(error))
