"""Entering directories that others may change, step by step: no link that they create leads out of the tree."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

_PATH: Final = getattr(os, "O_PATH", os.O_RDONLY)
_ENTER: Final = _PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MADE: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_NAMES: Final = frozenset({b"", b".", b".."})


def enter(root: bytes, relative: bytes, *, make: bool = False, own_links: bool = False) -> int:
    """Return a descriptor for the directory ``relative`` below ``root``, for the ``dir_fd`` of calls.

    The caller closes it. ``root`` itself may be reached through links. With ``make``, missing directories are created,
    with the permissions of their parent. With ``own_links``, links that root or this process's user made are followed
    (Linux only). Raises `OSError`: ELOOP for any other link, EXDEV for ``..``.
    """
    names = relative.split(b"/") if relative else []
    if not _NO_NAMES.isdisjoint(names):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), os.fsdecode(relative))
    directory = os.open(root, _PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names:
            inner = _make(directory, name, own_links=own_links) if make else step(directory, name, own_links=own_links)
            os.close(directory)
            directory = inner
    except BaseException:
        os.close(directory)
        raise
    return directory


def step(directory: int, name: bytes, *, own_links: bool = False) -> int:
    """Return a descriptor for the directory ``name`` in another one. Raises `OSError`, ELOOP for a link."""
    try:
        return os.open(name, _ENTER, dir_fd=directory)
    except OSError as error:
        if error.errno not in {errno.ENOTDIR, errno.ELOOP}:
            raise
        if not stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            raise
    target = _own_link(directory, name) if own_links else None
    if target is None:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fsdecode(name))
    return os.open(target, _PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)


def _make(directory: int, name: bytes, *, own_links: bool) -> int:
    try:
        return step(directory, name, own_links=own_links)
    except FileNotFoundError:
        pass
    try:
        os.mkdir(name, 0o700, dir_fd=directory)
    except FileExistsError:
        return step(directory, name, own_links=own_links)
    made = os.open(name, _MADE, dir_fd=directory)
    try:
        os.fchmod(made, stat.S_IMODE(os.fstat(directory).st_mode))
    finally:
        os.close(made)
    return step(directory, name)


def _own_link(directory: int, name: bytes) -> bytes | None:
    """Return where the link leads if root or this user made it."""
    if not hasattr(os, "O_PATH"):
        return None
    link = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        found = os.fstat(link)
        if not stat.S_ISLNK(found.st_mode) or found.st_uid not in {0, os.geteuid()}:
            return None
        return os.readlink(b"", dir_fd=link)
    finally:
        os.close(link)
