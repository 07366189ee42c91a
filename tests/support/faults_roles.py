"""The roles of an installation under faults, each kept running and hurt one by one."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from services.local.embedded_servers import Server
from tests.support import warm

CHECKOUT = Path(__file__).resolve().parent.parent.parent


class Role:
    """One role's process, started again a little after each end, as a supervisor would."""

    def __init__(
        self, name: str, number: int, *, env: Mapping[str, str], directory: Path, inside: Sequence[str] = ()
    ) -> None:
        self.name = name
        self._env = env
        self._inside = inside
        self._log = directory / f"{name}-{number}.log"
        self.checkout = CHECKOUT
        """Whose Sluice its next process is."""
        self._server: Server | None = None
        self._due = 0.0
        self.ends: list[int] = []
        """The exit codes of its processes so far."""

    @property
    def pid(self) -> int | None:
        """Of the role's own process, while it runs."""
        return None if self.ended or self._server is None else self._server.process.pid

    @property
    def ended(self) -> bool:
        """Whether its process is gone."""
        return self._server is None or self._server.process.poll() is not None

    def keep_running(self, now: float) -> None:
        if self._server is not None and self._server.process.poll() is not None:
            self.ends.append(self._server.process.returncode)
            self._server = None
            self._due = max(self._due, now + 0.2)
        if self._server is None and now >= self._due:
            command = [*self._inside, sys.executable, "-m", "services.cli", "run", self.name]
            template = warm.interpreter() if self.checkout == CHECKOUT else None
            self._server = Server(
                self.name, command, log_file=self._log, env=self._env, cwd=self.checkout, template=template
            )

    def send(self, number: signal.Signals, *, down_seconds: float = 0.0) -> None:
        """To the role's own process."""
        self._due = time.monotonic() + down_seconds
        if self._server is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._server.process.pid, number)

    def send_all(self, number: signal.Signals, *, down_seconds: float = 0.0) -> None:
        """To it and everything that it has started, as if at one moment: none sees another end before it."""
        self._due = time.monotonic() + down_seconds
        if self._server is None:
            return
        family: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            head = psutil.Process(self._server.process.pid)
            head.suspend()
            family.append(head)
            while grown := [one for one in head.children(recursive=True) if one not in family]:
                for one in grown:  # a suspended process starts no other
                    with contextlib.suppress(psutil.NoSuchProcess):
                        one.suspend()
                family += grown
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(number)

    def stop(self) -> None:
        """At once: nothing is expected of it any more."""
        if self._server is not None:
            self.send_all(signal.SIGKILL)
            self._server.process.wait()
