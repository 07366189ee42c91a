"""Ends processes that somebody has stopped (SIGSTOP) and not continued."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping

import psutil
import structlog

log = structlog.get_logger()


class HaltedProcesses:
    """Remembers since when each process has been seen stopped, from one look to the next."""

    def __init__(self, *, seconds: float) -> None:
        self._seconds = seconds
        self._since: dict[int, float] = {}

    def look(self, pids: Iterable[int]) -> list[int]:
        """Those of ``pids`` that were stopped at every look of the last ``seconds``, and are still."""
        now = time.monotonic()
        self._since = {pid: self._since.get(pid, now) for pid in pids if _is_stopped(pid)}
        return [pid for pid, since in self._since.items() if now - since >= self._seconds]


async def kill_halted(processes: Callable[[], Mapping[int, str]], *, seconds: float) -> None:
    """Until cancelled: SIGKILL those of ``processes`` (pid and what it is) that stay stopped for ``seconds``."""
    halted = HaltedProcesses(seconds=seconds)
    while True:
        await asyncio.sleep(seconds / 4)
        known = processes()
        for pid in halted.look(known):
            log.warning("a process is stopped, killing it", process=known[pid], pid=pid, seconds=seconds)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _is_stopped(pid: int) -> bool:
    """A process that a debugger holds is in another state, and is left to the debugger."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return False
