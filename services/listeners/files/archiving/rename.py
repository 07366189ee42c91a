"""Moves a file between two open directories without overwriting another one, on each operating system."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from services.common.file_version import Version

_NO_REPLACE: Final = 1
_EXCLUSIVE: Final = 4
_UNSUPPORTED: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM})


@dataclass(frozen=True, slots=True)
class FilePlace:
    """A name in a directory that is open; a link that has the name is not followed. Its methods raise `OSError`."""

    directory: int
    name: bytes

    def beside(self, name: bytes) -> FilePlace:
        """Return another name in the same directory."""
        return FilePlace(self.directory, name)

    def stat(self) -> os.stat_result:
        """Return what the system says of whatever has the name."""
        return os.stat(self.name, dir_fd=self.directory, follow_symlinks=False)

    def version(self) -> Version:
        """Return the version of the file."""
        return Version.of(self.stat())

    def exists(self) -> bool:
        """Whether something has the name, also a link that leads nowhere."""
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def open(self) -> int:
        """Return a descriptor for reading; does not wait where somebody has put a pipe there."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(self.name, flags, dir_fd=self.directory)

    def unlink(self) -> None:
        """Delete the name."""
        os.unlink(self.name, dir_fd=self.directory)


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
        source.unlink()
        return
    os.close(os.open(target.name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=target.directory))
    try:
        os.rename(source.name, target.name, **directories)
    except OSError:
        with contextlib.suppress(OSError):
            target.unlink()
        raise


def sync_directory(directory: int) -> None:
    """Make renames in an open directory durable across a power cut, where the file system can."""
    with contextlib.suppress(OSError), readable(directory) as descriptor:
        os.fsync(descriptor)


@contextmanager
def readable(directory: int) -> Iterator[int]:
    """Yield a descriptor for reading of an open directory, whose own may be good for nothing but ``dir_fd``."""
    descriptor = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
