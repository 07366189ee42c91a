"""A process that the supervisor keeps running: started again when it ends, killed and started again when it freezes."""

from __future__ import annotations

import signal
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from events.errors import SluiceError
from services.home.sign_of_life import forget_sign, last_sign, sign_path
from services.local.embedded_servers import Server

RESTART_SECONDS: Final = 0.2
LONGEST_RESTART_SECONDS: Final = 10.0
STEADY_SECONDS: Final = 30.0
"""A child that ran this long is restarted at once when it ends; one that ends sooner waits twice as long each time."""
FIRST_SIGN_SECONDS: Final = 120.0
"""How long a role may take until its first sign of life: it imports, and the machine may be busy."""
LATELY_SECONDS: Final = 300.0
_GAP_SECONDS: Final = 5.0
"""If the last check is this long ago, the supervisor itself was stopped, and silence of its children does not count."""

log = structlog.get_logger()


class Child:
    """How the process is started, and when it may be started again.

    With ``home``, the process gives signs of life there, and counts as frozen without one for ``frozen_seconds``.
    """

    def __init__(
        self, name: str, start: Callable[[], Server], *, home: Path | None = None, frozen_seconds: float = 0.0
    ) -> None:
        self.name = name
        self.server: Server | None = None
        self._start = start
        self._home = home
        self._frozen_seconds = frozen_seconds
        self._started = 0.0
        self._wait = RESTART_SECONDS
        self._due = 0.0
        self._sign: int | None = None
        self._signed = 0.0
        self._looked = 0.0
        self._ends: deque[float] = deque(maxlen=100)

    def start(self) -> None:
        """Start it; raises `SluiceError`."""
        self._started = self._signed = self._looked = time.monotonic()
        self._sign = None
        self.server = self._start()

    def keep_running(self) -> None:
        """Start the process again if it has ended or is frozen; called a few times a second."""
        if self.server is not None:
            code = self.server.process.poll()
            if code is None:
                self._kill_frozen(self.server)
                return
            self._ended(code)
        elif time.monotonic() >= self._due:
            try:
                self.start()
            except SluiceError as error:
                self._due = time.monotonic() + LONGEST_RESTART_SECONDS
                log.error("process does not start", process=self.name, error=str(error))  # noqa: TRY400 - one line

    def stop(self, within_seconds: float) -> None:
        """End it in order."""
        if self.server is not None:
            self.server.stop(within_seconds)

    def _ended(self, code: int) -> None:
        """Note the end of the process, and when it is started again: at once, or later the more often it ends."""
        if self._home is not None and self.server is not None:
            forget_sign(sign_path(self._home, self.server.process.pid))
        now = time.monotonic()
        steady = now - self._started > STEADY_SECONDS
        self._wait = RESTART_SECONDS if steady else min(self._wait * 2, LONGEST_RESTART_SECONDS)
        self._due = now + self._wait
        self.server = None
        self._ends.append(now)
        lately = sum(now - end < LATELY_SECONDS for end in self._ends)
        log.error(
            "process ended, starting it again",
            process=self.name,
            ended=_how(code),
            in_seconds=self._wait,
            ended_in_five_minutes=lately,
        )

    def _kill_frozen(self, server: Server) -> None:
        """SIGKILL, as a process that is stopped or hangs obeys nothing else."""
        if self._home is None:
            return
        now = time.monotonic()
        sign = last_sign(sign_path(self._home, server.process.pid))
        if sign != self._sign or now - self._looked > _GAP_SECONDS:
            self._sign, self._signed = sign, now
        self._looked = now
        limit = self._frozen_seconds if sign is not None else max(self._frozen_seconds, FIRST_SIGN_SECONDS)
        if now - self._signed > limit:
            log.error(
                "process is frozen: no sign of life, killing it",
                process=self.name,
                pid=server.process.pid,
                seconds=limit,
            )
            server.kill()
            self._signed = now


def _how(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
