"""Moves a file between two open directories without overwriting another one, on each operating system."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_NO_REPLACE: Final = 1
_EXCLUSIVE: Final = 4
_UNSUPPORTED: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM})


@dataclass(frozen=True, slots=True)
class FilePlace:
    """A name in a directory that is open."""

    directory: int
    name: bytes


def _system_call() -> Callable[[FilePlace, FilePlace], int] | None:
    """Return the operating system's rename that refuses to overwrite."""
    library = ctypes.CDLL(None, use_errno=True)
    call, flag = {"linux": ("renameat2", _NO_REPLACE), "darwin": ("renameatx_np", _EXCLUSIVE)}.get(
        sys.platform, ("", 0)
    )
    if not call or not hasattr(library, call):
        return None
    rename = getattr(library, call)
    rename.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    return lambda source, target: int(rename(source.directory, source.name, target.directory, target.name, flag))


_RENAME: Final = _system_call()


def rename_new(source: FilePlace, target: FilePlace) -> None:
    """Rename ``source`` to ``target`` in one step; raises `FileExistsError` if ``target`` exists."""
    if _RENAME is not None:
        if _RENAME(source, target) == 0:
            return
        number = ctypes.get_errno()
        if number not in _UNSUPPORTED:
            raise OSError(number, os.strerror(number), source.name, None, target.name)
    _rename_without_help(source, target)


def _rename_without_help(source: FilePlace, target: FilePlace) -> None:
    """Do the same where the file system cannot: by a second link, or over a name reserved before."""
    directories = {"src_dir_fd": source.directory, "dst_dir_fd": target.directory}
    try:
        os.link(source.name, target.name, **directories, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _UNSUPPORTED | {errno.EMLINK}:
            raise
    else:
        os.unlink(source.name, dir_fd=source.directory)
        return
    os.close(os.open(target.name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=target.directory))
    try:
        os.rename(source.name, target.name, **directories)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(target.name, dir_fd=target.directory)
        raise


def sync_directory(directory: int) -> None:
    """Make renames in an open directory durable across a power cut, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
