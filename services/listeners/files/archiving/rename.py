"""Moves a file without overwriting another one, on each operating system."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import sys
from collections.abc import Callable
from typing import Final

_AT_FDCWD: Final = -100
_NO_REPLACE: Final = 1
_EXCLUSIVE: Final = 4
_UNSUPPORTED: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM})


def _system_call() -> Callable[[bytes, bytes], int] | None:
    """Return the operating system's rename that refuses to overwrite."""
    library = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "linux" and hasattr(library, "renameat2"):
        linux = library.renameat2
        linux.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
        return lambda source, target: int(linux(_AT_FDCWD, source, _AT_FDCWD, target, _NO_REPLACE))
    if sys.platform == "darwin" and hasattr(library, "renamex_np"):
        mac = library.renamex_np
        mac.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint)
        return lambda source, target: int(mac(source, target, _EXCLUSIVE))
    return None


_RENAME: Final = _system_call()


def rename_new(source: bytes, target: bytes) -> None:
    """Rename ``source`` to ``target`` in one step; raises `FileExistsError` if ``target`` exists."""
    if _RENAME is not None:
        if _RENAME(source, target) == 0:
            return
        number = ctypes.get_errno()
        if number not in _UNSUPPORTED:
            raise OSError(number, os.strerror(number), source, None, target)
    _rename_without_help(source, target)


def _rename_without_help(source: bytes, target: bytes) -> None:
    """Do the same where the file system cannot: by a second link, or over a name reserved before."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _UNSUPPORTED | {errno.EMLINK}:
            raise
    else:
        os.unlink(source)
        return
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    try:
        os.rename(source, target)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(target)
        raise


def sync_directory(path: bytes) -> None:
    """Make renames in a directory durable across a power cut, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
