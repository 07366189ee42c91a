"""System calls that Python's library lacks: opening below a directory, and the creation time of a file."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from typing import Final

from sluice.directories import enter

_OPENAT2: Final = 437
"""The system call's number, the same on every architecture."""
_BENEATH: Final = 0x08 | 0x04 | 0x02
"""RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_MAGICLINKS."""
_AT_EMPTY_PATH: Final = 0x1000
_STATX_BTIME: Final = 0x800
_STATX_BTIME_AT: Final = 80
_STATX_BYTES: Final = 256
"""The time of birth in Linux' `struct statx`, the same on every architecture."""
_NOT_THERE: Final = frozenset({errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.E2BIG, errno.EAGAIN})
"""No openat2: an old kernel, a filter that forbids it, or names that change all the time. The walk does not need it."""
_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_NOCTTY", 0)


def open_beneath(root: bytes, relative: bytes, *, kernel: bool = True) -> int:
    """Return a descriptor for reading the file at ``relative`` below the directory ``root``; no link is followed.

    Uses one system call if the kernel has openat2 (and ``kernel`` is true), else a step for each directory. Raises
    `OSError`: ELOOP or EXDEV for a link or ``..`` in the path.
    """
    names = relative.split(b"/")
    if not relative or any(name in {b"", b".", b".."} for name in names):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), os.fsdecode(relative))
    if kernel and sys.platform == "linux":
        directory = enter(root, b"")
        try:
            descriptor = openat2(directory, relative)
        finally:
            os.close(directory)
        if descriptor is not None:
            return descriptor
    directory = enter(root, b"/".join(names[:-1]))
    try:
        return os.open(names[-1], _READ, dir_fd=directory)
    finally:
        os.close(directory)


def openat2(directory: int, relative: bytes) -> int | None:
    """A descriptor as `open_beneath` returns it; None where there is no such system call."""
    how = struct.pack("QQQ", _READ, 0, _BENEATH)
    descriptor: int = _libc().syscall(
        ctypes.c_long(_OPENAT2),
        ctypes.c_int(directory),
        ctypes.c_char_p(relative),
        ctypes.c_char_p(how),
        ctypes.c_size_t(len(how)),
    )
    if descriptor >= 0:
        return descriptor
    number = ctypes.get_errno()
    if number in _NOT_THERE:
        return None
    raise OSError(number, os.strerror(number), os.fsdecode(relative))


def made_ns(descriptor: int) -> int | None:
    """Return when the open file was created, in nanoseconds; None if the file system does not record it.

    Neither a rename nor chmod changes it.
    """
    born = getattr(os.fstat(descriptor), "st_birthtime", None)  # macOS
    if born is not None:
        return int(born * 1e9)
    statx = getattr(_libc(), "statx", None)
    answer = ctypes.create_string_buffer(_STATX_BYTES)
    if statx is None or statx(descriptor, b"", _AT_EMPTY_PATH, _STATX_BTIME, answer) != 0:
        return None
    (told,) = struct.unpack_from("I", answer, 0)
    seconds, nanoseconds = struct.unpack_from("qI", answer, _STATX_BTIME_AT)
    return seconds * 10**9 + nanoseconds if told & _STATX_BTIME else None


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
