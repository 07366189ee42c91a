"""Checks of the watched folder itself: whether it exists, is still the same, and its changes are reported."""

from __future__ import annotations

import fcntl
import os
import stat
import struct
import sys
import uuid
from dataclasses import dataclass
from typing import Final

from services.listeners.files.folder import OWN, Folder

COOKIE: Final = OWN + b"-cookie-"
_GET_VERSION: Final = 0x80000000 | struct.calcsize("l") << 16 | ord("v") << 8 | 1
"""FS_IOC_GETVERSION on most of Linux' architectures."""


@dataclass(frozen=True, slots=True)
class Root:
    """What is at the watch's path: the ``identity`` of a usable directory, or the ``problem``."""

    identity: str | None = None
    problem: str | None = None


def look_at_root(folder: Folder) -> Root:
    """Return what is at the watch's path now; blocks for the time of the system calls."""
    try:
        found = os.stat(folder.root)
        if not stat.S_ISDIR(found.st_mode):
            return Root(problem=f"the watched folder {folder.path} is not a directory")
        with os.scandir(folder.root):
            generation = _generation(folder.root)
    except (FileNotFoundError, NotADirectoryError):
        return Root(problem=f"the watched folder {folder.path} is not there: it was renamed, deleted or unmounted")
    except OSError as error:
        return Root(problem=f"the watched folder {folder.path} cannot be read: {error.strerror}")
    return Root(identity=f"{found.st_dev}-{found.st_ino}-{generation}")


def _generation(path: bytes) -> int:
    """Return a number that differs for two directories that have had the same inode; 0 where there is none."""
    if sys.platform != "linux":
        return 0
    answer = bytearray(8)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(descriptor, _GET_VERSION, answer)
    except OSError:
        return 0
    finally:
        os.close(descriptor)
    return int.from_bytes(answer[:4], sys.byteorder)


def are_gone(folder: Folder, paths: list[bytes]) -> list[bytes]:
    """Return those of ``paths`` that do not exist; one that cannot be examined is not among them."""
    gone = []
    for path in paths:
        try:
            os.lstat(folder.absolute(path))
        except (FileNotFoundError, NotADirectoryError):
            gone.append(path)
        except OSError:
            continue
    return gone


class Cookie:
    """A file that is created in the watch and deleted at once, to learn whether the watcher reports it."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self.name = COOKIE + uuid.uuid4().hex[:12].encode()
        self.asked_at: float | None = None
        """When the cookie that is not reported yet was created."""

    def drop(self) -> str | None:
        """Create and delete the file; why it cannot be done, if so. Blocks for the time of the system calls."""
        path = self._folder.absolute(self.name)
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            os.unlink(path)
        except OSError as error:
            return error.strerror
        return None
