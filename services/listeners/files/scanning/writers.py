"""Asks the kernel, by means of a file lease, whether a process has a file open for writing."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import signal
import sys
from collections.abc import Iterator
from enum import Enum, auto
from typing import Final

_SUPPORTED: Final = sys.platform == "linux"


class Writers(Enum):
    """What the kernel reports about a file."""

    NONE = auto()
    """No process on this machine has the file open, or mapped, for writing."""
    SOME = auto()
    UNKNOWN = auto()
    """The kernel does not report it: not Linux, a file system without leases, or a file of another user."""


def writers(descriptor: int) -> Writers:
    """Return whether a process has the file open for writing; ``descriptor`` is read-only. Costs some microseconds.

    Does not see writers on other machines, and writers between closing and reopening.
    """
    found = _hold_off(descriptor)
    if found is Writers.NONE:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return found


@contextlib.contextmanager
def held_off(descriptor: int) -> Iterator[Writers]:
    """Like `writers`; where there are none, no process can open the file for writing until the block is left.

    A process that tries blocks until then, or fails if it opens without blocking: keep the block short.
    """
    found = _hold_off(descriptor)
    try:
        yield found
    finally:
        if found is Writers.NONE:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def _hold_off(descriptor: int) -> Writers:
    """Return whether somebody has the file open for writing, which the kernel tells by refusing a lease."""
    if not _SUPPORTED:
        return Writers.UNKNOWN
    try:
        # A writer that opens the file during the lease makes the kernel send a signal. The default one, SIGIO, ends the
        # process; SIGURG is ignored by default.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return Writers.SOME if error.errno == errno.EAGAIN else Writers.UNKNOWN
    return Writers.NONE
