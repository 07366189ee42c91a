"""Whether anyone is writing to an open file, asked of the kernel by way of a lease."""

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
    """What the kernel says of a file."""

    NONE = auto()
    """Nobody has it open for writing, or mapped for it, on this machine."""
    SOME = auto()
    UNKNOWN = auto()
    """The kernel does not tell: not Linux, a file system without leases, or a file of another user."""


def writers(descriptor: int) -> Writers:
    """Whether anyone has the file open for writing; ``descriptor`` is read-only. Costs some microseconds.

    Blind to writers on other machines, and to those between closing and reopening.
    """
    found = _hold_off(descriptor)
    if found is Writers.NONE:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return found


@contextlib.contextmanager
def held_off(descriptor: int) -> Iterator[Writers]:
    """As `writers`; where there are none, nobody can open the file for writing until the block is left.

    A process that tries waits as long, or fails if it opened without blocking: keep it short.
    """
    found = _hold_off(descriptor)
    try:
        yield found
    finally:
        if found is Writers.NONE:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)


def _hold_off(descriptor: int) -> Writers:
    if not _SUPPORTED:
        return Writers.UNKNOWN
    try:
        # A writer that comes while the lease is held makes the kernel send a signal. The default one, SIGIO, ends the
        # process; this one is ignored unless someone asks for it.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return Writers.SOME if error.errno == errno.EAGAIN else Writers.UNKNOWN
    return Writers.NONE
