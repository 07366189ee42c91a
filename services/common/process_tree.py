"""The processes below this one: they end with it, become its children when their parents end, and are reaped.

Also the titles that lists of processes show.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil

from sluice.display import visible

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_MADV_DONTNEED: Final = 4
_LEAVE_ENVIRONMENT: Final = "SPT_NOENV"
"""Keeps setproctitle from using the memory after the command line, which holds the environment that others can read."""


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, however it ends (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def end_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when its parent ends, however it ends (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def adopt_orphans() -> bool:
    """Become the parent of descendants whose own parent ends (Linux only); false if that is not possible."""
    return sys.platform == "linux" and bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1) == 0)


def reap_children() -> Iterator[tuple[int, int]]:
    """Reap every child that has ended, adopted ones too; return pids and wait statuses."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        yield pid, status


@contextmanager
def pauses_until_children_end() -> Iterator[Callable[[float], None]]:
    """A function of the main thread that returns after so many seconds, or when a child has ended."""
    reading, writing = os.pipe()
    for descriptor in (reading, writing):
        os.set_blocking(descriptor, False)

    def pause(seconds: float) -> None:
        if select.select([reading], [], [], seconds)[0]:
            os.read(reading, 4096)

    handler = signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield pause
    finally:
        signal.set_wakeup_fd(woken)
        signal.signal(signal.SIGCHLD, handler)
        os.close(reading)
        os.close(writing)


def unmap_code() -> None:
    """Give back the memory of the libraries' machine code, for an idle process.

    Code that it calls is read from the files again. Code is mapped read-only, so nothing is lost. Linux only.
    """
    if sys.platform != "linux":
        return
    advise = ctypes.CDLL(None).madvise
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
        place, rights, _, _, _, *name = line.split()
        if rights == "r-xp" and name and name[0].startswith("/"):
            begin, end = (int(address, 16) for address in place.split("-"))
            advise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_DONTNEED)


def show_as(title: str) -> None:
    """Make lists of processes show ``title`` for this one, cut to the length of its command line.

    Without the library nothing is changed. Takes 3 µs, and some ten the first time.
    """
    given = os.environ.get(_LEAVE_ENVIRONMENT)
    os.environ[_LEAVE_ENVIRONMENT] = "1"  # read on the first call
    try:
        from setproctitle import setproctitle

        setproctitle(f"sluice: {visible(title)}")
    except ImportError:
        return
    finally:
        del os.environ[_LEAVE_ENVIRONMENT]
        if given is not None:
            os.environ[_LEAVE_ENVIRONMENT] = given


class Strays:
    """The processes that a run leaves behind: orphans become children of a slot that adopts them."""

    def __init__(self, *, known: Iterable[int] | None = None) -> None:
        """Processes that exist already, or those ``known``, are not strays."""
        self._before = self._mine() if known is None else set(known)

    def kill(self, *, rounds: int = 20) -> int:
        """SIGKILL all children that this process has got since; return their number. Killing one may orphan more."""
        killed = 0
        for _ in range(rounds):
            strays = [process for process in _children() if process.pid not in self._before]
            if not strays:
                break
            for stray in strays:
                with contextlib.suppress(psutil.Error):
                    for process in (*stray.children(recursive=True), stray):
                        process.kill()
                        killed += 1
            psutil.wait_procs(strays, timeout=0.2)
        return killed

    @staticmethod
    def _mine() -> set[int]:
        return {process.pid for process in _children()}


def is_stopped(pid: int) -> bool:
    """Whether the process is stopped by a signal (SIGSTOP); one that a debugger traces is in another state."""
    with contextlib.suppress(OSError, IndexError):  # psutil reads four times as much
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"T"
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return False


def kill_all(pids: Iterable[int]) -> None:
    """SIGKILL each of the processes that still exists."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def reap_orphans(own: Collection[int]) -> None:
    """Reap the adopted children that have ended, except ``own``, for which other code waits."""
    for pid in _child_pids():
        if pid not in own:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def _children() -> list[psutil.Process]:
    """Return this process's own children."""
    found = []
    for pid in _child_pids():
        with contextlib.suppress(psutil.Error):
            found.append(psutil.Process(pid))
    return found


def _child_pids() -> list[int]:
    """Return them without psutil if possible, which would read every process of the machine."""
    try:
        return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii").split()]
    except OSError:
        return [child.pid for child in psutil.Process().children()]
