"""Notifies systemd about a `sluice up` that it has started: ready, alive, stopping."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Final

_SOCKET: Final = "NOTIFY_SOCKET"
_WATCHDOG: Final = "WATCHDOG_USEC"
_WATCHED: Final = "WATCHDOG_PID"


class ServiceManager:
    """Speaks sd_notify(3); does nothing where no service manager has started this process."""

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        """Remove its variables from ``environ``: they are for this process, not for those that it starts."""
        address = environ.pop(_SOCKET, "")
        watched = environ.pop(_WATCHED, str(os.getpid()))
        microseconds = environ.pop(_WATCHDOG, "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._beat_seconds = (
            int(microseconds) / 1e6 / 3 if microseconds.isdecimal() and watched == str(os.getpid()) else None
        )
        self._beaten = 0.0

    def ready(self) -> None:
        """Notify that everything works: units that wait for this one may start."""
        self._tell("READY=1\nSTATUS=ready")

    def status(self, sentence: str) -> None:
        """Set the text that `systemctl status` shows."""
        self._tell(f"STATUS={sentence}")

    def stopping(self) -> None:
        """Notify that the stop has begun."""
        self._tell("STOPPING=1\nSTATUS=stopping")

    def beat(self) -> None:
        """Give a sign of life, three times as often as systemd requires; call it at least that often."""
        if self._beat_seconds is not None and time.monotonic() - self._beaten >= self._beat_seconds:
            self._beaten = time.monotonic()
            self._tell("WATCHDOG=1")

    def _tell(self, message: str) -> None:
        if self._address:
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
                told.sendto(message.encode(), self._address)
