"""Writes files at a name in an open directory, whole or not at all; a link in their place is not written through."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from typing import IO

from services.listeners.files.archiving.rename import FilePlace, rename_new


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
        draft.unlink()
        return False
    return True


def _drafting(draft: FilePlace) -> IO[bytes]:
    """Open a new file; what a crash has left, or somebody has put there, is taken away before."""
    with contextlib.suppress(FileNotFoundError):
        draft.unlink()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.fdopen(os.open(draft.name, flags, 0o600, dir_fd=draft.directory), "wb")


def copy(source: FilePlace, target: FilePlace, draft: FilePlace) -> None:
    """Copy across file systems: atomically, with the same times and permissions."""
    try:
        with os.fdopen(source.open(), "rb") as old, _drafting(draft) as new:
            shutil.copyfileobj(old, new, 1024 * 1024)
            new.flush()
            found = os.fstat(old.fileno())
            os.fchmod(new.fileno(), stat.S_IMODE(found.st_mode))
            os.utime(new.fileno(), ns=(found.st_atime_ns, found.st_mtime_ns))
            os.fsync(new.fileno())
        rename_new(draft, target)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
