"""Kills processes that were stopped (SIGSTOP) and not continued."""

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
    """Records since when each process has been seen stopped."""

    def __init__(self, *, seconds: float) -> None:
        self._seconds = seconds
        self._since: dict[int, float] = {}

    def look(self, pids: Iterable[int]) -> list[int]:
        """Return those of ``pids`` that were stopped at every call of the last ``seconds``."""
        now = time.monotonic()
        self._since = {pid: self._since.get(pid, now) for pid in pids if _is_stopped(pid)}
        return [pid for pid, since in self._since.items() if now - since >= self._seconds]


async def kill_halted(processes: Callable[[], Mapping[int, str]], *, seconds: float) -> None:
    """Until cancelled, SIGKILL each of ``processes`` (pid and description) that stays stopped for ``seconds``."""
    halted = HaltedProcesses(seconds=seconds)
    while True:
        await asyncio.sleep(seconds / 4)
        known = processes()
        for pid in halted.look(known):
            log.warning("a process is stopped, killing it", process=known[pid], pid=pid, seconds=seconds)
            kill_stopped([pid])


def kill_stopped(pids: Iterable[int]) -> None:
    """SIGKILL those of the processes that are stopped at this moment."""
    for pid in filter(_is_stopped, pids):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _is_stopped(pid: int) -> bool:
    """Whether the process is stopped by a signal; one that a debugger traces is in another state."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return False
