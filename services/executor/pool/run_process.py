"""The handle of a process for one run: starting it, reading its reports, ending it."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import psutil

from services.common.process_tree import die_with_parent
from services.common.project_imports import CHECKOUT
from services.executor.messages import (
    ExecuteRun,
    Instruction,
    ProcessMessage,
    SettingState,
    StateSet,
    SuspendRun,
    TakeIntent,
)
from services.executor.pipes import PipeLines, to_line, write
from services.executor.process.process_setup import default_signals, fresh_random_state

Entry = Callable[[int, int], NoReturn]
"""What the process does; it reports on the first descriptor and reads orders from the second."""
M = TypeVar("M")

_LOOK_SECONDS: Final = 0.05
"""How often a process is looked at that may end without a report."""


@dataclass
class RunProcess:
    """One process for a run. Its descriptors belong to the process that started it until `close`."""

    run_id: str
    pid: int
    reports: PipeLines
    orders: int
    started: float = field(default_factory=time.monotonic)
    status: int | None = None
    """The wait status, once the process has ended."""
    spawned: subprocess.Popen[bytes] | None = None
    own_states: set[str | None] = field(default_factory=set)
    """The ids of the run's states that the process set itself, or received as it tried to set one."""
    setting_states: int = 0
    """The number of states that the process has proposed and Prefect has not responded to."""
    _last: dict[type[Any], ProcessMessage] = field(default_factory=dict)

    def hear(self) -> list[ProcessMessage]:
        """Return the messages since the last call; `last` keeps the last of each kind."""
        messages = [] if self.reports.ended else self.reports.read()
        for message in messages:
            self._last[type(message)] = message
            if isinstance(message, SettingState):
                self.setting_states += 1
            elif isinstance(message, StateSet):
                self.setting_states -= 1
                self.own_states.add(message.state_id)
        return messages

    def last(self, kind: type[M]) -> M | None:
        """Return the last message of that kind."""
        message = self._last.get(kind)
        return message if isinstance(message, kind) else None

    def wait_for_end(self, *, within_seconds: float = math.inf) -> bool:
        """Block until the process has ended, reading its reports; whether it has ended in time."""
        deadline = time.monotonic() + within_seconds
        while not self.reap():
            if time.monotonic() >= deadline:
                return False
            select.select([] if self.reports.ended else [self.reports.descriptor], [], [], _LOOK_SECONDS)
            self.hear()
        self.hear()
        return True

    def reap(self) -> bool:
        """Whether the process has ended; sets `status`."""
        if self.status is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                pid, status = self.pid, 0
            if pid:
                self.status = status
                if self.spawned is not None:
                    self.spawned.returncode = os.waitstatus_to_exitcode(status)
        return self.status is not None

    def tell(self, message: SuspendRun | TakeIntent) -> None:
        """Send an order to the process; it returns a `TakeIntent`."""
        with contextlib.suppress(OSError):
            write(self.orders, message)

    def terminate(self) -> None:
        """Send SIGTERM to the process alone: the flow ends its own children."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL to the whole process group."""
        self._signal(signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.killpg(self.pid, signal.SIGKILL)

    def memory_mb(self) -> float:
        """Return the proportional share of memory of the run's processes in MiB; 0 when they have ended."""
        total = 0
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(self.pid)
            for process in (root, *root.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    full = process.memory_full_info()
                    total += getattr(full, "pss", full.rss)
        return total / 1024 / 1024

    def close(self) -> None:
        """Close the descriptors."""
        for descriptor in (self.reports.descriptor, self.orders):
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _signal(self, number: signal.Signals) -> None:
        if self.status is None:  # not reaped, so the pid still is this process
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def fork(run_id: str, entry: Entry, *, forget: Callable[[], None]) -> RunProcess:
    """Fork a process that runs ``entry``; ``forget`` closes this process's descriptors in the fork."""
    reports, orders = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            default_signals()
            os.setpgid(0, 0)
            die_with_parent()
            os.close(reports[0])
            os.close(orders[1])
            forget()
            fresh_random_state()
            entry(reports[1], orders[0])
        finally:
            os._exit(70)  # `entry` does not return
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)  # whichever of the two comes first
    return _run_process(run_id, pid, reports, orders)


def spawn(instruction: Instruction, *, environment: Mapping[str, str], shelf: Path) -> RunProcess:
    """Start a fresh interpreter that carries the instruction out; it asks for the server's options itself.

    Slower than a fork by the time that importing Prefect takes.
    """
    if isinstance(instruction, ExecuteRun):
        instruction = replace(instruction, options=None)
    reports, orders = os.pipe(), os.pipe()
    process = subprocess.Popen(  # noqa: S603 - the command is ours
        command(instruction, reports[1], orders[0], shelf),
        env=dict(environment),
        cwd=CHECKOUT,
        pass_fds=(reports[1], orders[0]),
        process_group=0,
        preexec_fn=die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 - the slot has one thread
    )
    run_process = _run_process(instruction.run_id, process.pid, reports, orders)
    run_process.spawned = process
    return run_process


def command(instruction: Instruction, reports: int, orders: int, shelf: Path) -> list[str]:
    """Return the command line of `services.executor.pool.spawned_process`, to be run from the checkout."""
    module = "services.executor.pool.spawned_process"
    return [sys.executable, "-m", module, str(reports), str(orders), str(shelf), to_line(instruction).decode().rstrip()]


def _run_process(run_id: str, pid: int, reports: tuple[int, int], orders: tuple[int, int]) -> RunProcess:
    os.close(reports[1])
    os.close(orders[0])
    os.set_blocking(reports[0], False)
    return RunProcess(run_id=run_id, pid=pid, reports=PipeLines(reports[0]), orders=orders[1])
