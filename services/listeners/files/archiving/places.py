"""Files at a name in an open directory: links in their place are neither followed nor written through."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from contextlib import ExitStack
from typing import IO

from services.listeners.files.archiving.rename import FilePlace, rename_new


def entered(stack: ExitStack, directory: int) -> int:
    """Return the descriptor, which the stack closes."""
    stack.callback(os.close, directory)
    return directory


def exists(place: FilePlace) -> bool:
    """Whether something is there, also a link that leads nowhere."""
    try:
        os.stat(place.name, dir_fd=place.directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def write_new(target: FilePlace, text: bytes, draft: FilePlace, mode: int) -> bool:
    """Write a file atomically; false if it exists already."""
    with _drafting(draft) as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        rename_new(draft, target)
    except FileExistsError:
        os.unlink(draft.name, dir_fd=draft.directory)
        return False
    return True


def _drafting(draft: FilePlace) -> IO[bytes]:
    """Open a new file; what a crash has left, or somebody has put there, is taken away before."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(draft.name, dir_fd=draft.directory)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.fdopen(os.open(draft.name, flags, 0o600, dir_fd=draft.directory), "wb")


def copy(source: FilePlace, target: FilePlace, draft: FilePlace) -> None:
    """Copy across file systems: atomically, with the same times and permissions."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(source.name, flags, dir_fd=source.directory), "rb") as old, _drafting(draft) as new:
            shutil.copyfileobj(old, new, 1024 * 1024)
            new.flush()
            found = os.fstat(old.fileno())
            os.fchmod(new.fileno(), stat.S_IMODE(found.st_mode))
            os.utime(new.fileno(), ns=(found.st_atime_ns, found.st_mtime_ns))
            os.fsync(new.fileno())
        rename_new(draft, target)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(draft.name, dir_fd=draft.directory)
        raise
