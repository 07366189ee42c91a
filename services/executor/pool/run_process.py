"""A running run process as its slot sees it: its process, what it reports, and how it is made to end."""

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
"""Runs the run with this id in this process, reporting on one descriptor and hearing intents on the other."""


@dataclass
class RunProcess:
    """One run process process. Its descriptors belong to the slot until `close`."""

    run_id: str
    pid: int
    reports: PipeLines
    intents: int
    started: float = field(default_factory=time.monotonic)
    steps: dict[str, Message] = field(default_factory=dict)
    status: int | None = None
    """The wait status, once it has ended."""
    ending: tuple[str, str] | None = None
    """What the run is to become and why, once it was decided from outside."""
    spawned: subprocess.Popen[bytes] | None = None
    own_states: set[str] = field(default_factory=set)
    """The ids of the run's states that the process itself brought about or was told of as it tried to."""
    proposing: int = 0
    """The number of states that it has proposed without an answer yet."""
    overtaken: Overtaken = field(default_factory=Overtaken)

    def hear(self) -> list[Message]:
        """What it reported since last asked; `steps` keeps the last of each kind."""
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
        """Whether it has ended; collects its status."""
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
        """Say what the SIGTERM that follows means; it answers with the step ``intent``."""
        with contextlib.suppress(OSError):
            os.write(self.intents, f"{intent}\n".encode())

    def suspend(self, state_id: str, occurred: str) -> None:
        """Say that the run was suspended from outside: its engine stops at its next step."""
        self.tell_intent(f"suspend {state_id} {occurred}")

    def terminate(self) -> None:
        """SIGTERM to the process itself: its children are the flow's business while it ends by itself."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to its whole process group."""
        self._signal(signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.killpg(self.pid, signal.SIGKILL)

    def memory_mb(self) -> float:
        """The proportional share of memory of the run's processes, in MiB; 0 when they are gone."""
        total = 0
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(self.pid)
            for process in (root, *root.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    full = process.memory_full_info()
                    total += getattr(full, "pss", full.rss)
        return total / 1024 / 1024

    def close(self) -> None:
        """Let go of the descriptors."""
        for descriptor in (self.reports.descriptor, self.intents):
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _signal(self, number: signal.Signals) -> None:
        if self.status is None:  # not reaped, so the pid is still its own
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def fork(run_id: str, entry: Entry, *, forget: Callable[[], None]) -> RunProcess:
    """A copy of this process that runs ``entry``; ``forget`` closes in it what belongs to this one."""
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
    """A fresh interpreter for the run."""
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
    """What starts `services.executor.pool.spawned_process`, from the checkout."""
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
