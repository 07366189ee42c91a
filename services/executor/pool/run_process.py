"""The slot's handle of a run process: starting it, reading its reports, ending it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import psutil

from services.common.process_tree import die_with_parent
from services.executor.pipes import Message, PipeLines
from services.executor.pool.overtaken import Overtaken
from services.executor.process.process_setup import CHECKOUT, default_signals, fresh_random_state

Entry = Callable[[str, int, int], NoReturn]
"""Executes the run with this id in this process; reports on the first descriptor, reads intents from the second."""


@dataclass
class RunProcess:
    """One run process. Its descriptors belong to the slot until `close`."""

    run_id: str
    pid: int
    reports: PipeLines
    intents: int
    started: float = field(default_factory=time.monotonic)
    steps: dict[str, Message] = field(default_factory=dict)
    status: int | None = None
    """The wait status, once the process has ended."""
    ending: tuple[str, str] | None = None
    """The end reason and its message, once an end was decided from outside the process."""
    spawned: subprocess.Popen[bytes] | None = None
    own_states: set[str] = field(default_factory=set)
    """The ids of the run's states that the process set itself, or received as it tried to set one."""
    proposing: int = 0
    """The number of states that the process has proposed and Prefect has not responded to."""
    overtaken: Overtaken = field(default_factory=Overtaken)

    def hear(self) -> list[Message]:
        """Return the reports since the last call; `steps` keeps the last of each kind."""
        messages = [] if self.reports.ended else self.reports.read()
        for message in messages:
            self.steps[message["step"]] = message
            if message["step"] == "proposing":
                self.proposing += 1
            elif message["step"] == "proposed":
                self.proposing -= 1
                self.own_states.add(str(message["state"]))
        return messages

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

    def tell_intent(self, intent: str) -> None:
        """Send the meaning of the SIGTERM that follows; the process confirms with the step ``intent``."""
        with contextlib.suppress(OSError):
            os.write(self.intents, f"{intent}\n".encode())

    def suspend(self, state_id: str, occurred: str) -> None:
        """Send that the run was suspended from outside: its engine stops at its next step."""
        self.tell_intent(f"suspend {state_id} {occurred}")

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
        for descriptor in (self.reports.descriptor, self.intents):
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _signal(self, number: signal.Signals) -> None:
        if self.status is None:  # not reaped, so the pid still is this process
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def fork(run_id: str, entry: Entry, *, forget: Callable[[], None]) -> RunProcess:
    """Fork a process that runs ``entry``; ``forget`` closes this process's descriptors in the fork."""
    report_read, report_write = os.pipe()
    intent_read, intent_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            default_signals()
            os.setpgid(0, 0)
            die_with_parent()
            os.close(report_read)
            os.close(intent_write)
            forget()
            fresh_random_state()
            entry(run_id, report_write, intent_read)
        finally:
            os._exit(70)  # `entry` does not return
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)  # whichever of the two comes first
    return _run_process(run_id, pid, (report_read, report_write), (intent_read, intent_write))


def spawn(run_id: str, arguments: Mapping[str, Any], *, env: Mapping[str, str]) -> RunProcess:
    """Start a fresh interpreter for the run."""
    report_read, report_write = os.pipe()
    intent_read, intent_write = os.pipe()
    process = subprocess.Popen(  # noqa: S603 - the command is ours
        command(run_id, report_write, intent_read, arguments),
        env=dict(env),
        cwd=CHECKOUT,
        pass_fds=(report_write, intent_read),
        process_group=0,
        preexec_fn=die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509 - the slot has one thread
    )
    run_process = _run_process(run_id, process.pid, (report_read, report_write), (intent_read, intent_write))
    run_process.spawned = process
    return run_process


def command(run_id: str, reports: int, intents: int, arguments: Mapping[str, Any]) -> list[str]:
    """Return the command line of `services.executor.pool.spawned_process`, run from the checkout."""
    options = [f"{name}={value}" for name, value in arguments.items()]
    return [
        sys.executable,
        "-m",
        "services.executor.pool.spawned_process",
        run_id,
        str(reports),
        str(intents),
        *options,
    ]


def _run_process(run_id: str, pid: int, reports: tuple[int, int], intents: tuple[int, int]) -> RunProcess:
    os.close(reports[1])
    os.close(intents[0])
    os.set_blocking(reports[0], False)
    return RunProcess(run_id=run_id, pid=pid, reports=PipeLines(reports[0]), intents=intents[1])
