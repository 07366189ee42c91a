"""What tests of the executor's processes share: an assignment, and a run process that is only its two pipes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from config.settings import LogSettings, RedisSettings
from services.executor.messages import Assignment, ProcessMessage
from services.executor.pipes import PipeLines, write
from services.executor.pool.run_process import RunProcess

NOBODY = 2**22 + 1
"""A pid that no process of Linux has."""


def assignment(**fields: Any) -> Assignment:
    own = {
        "instance": "me",
        "executor": "bench",
        "queues": ("sluice-runs",),
        "mode": "fork",
        "grace_seconds": 1.0,
        "lost_seconds": 20.0,
        "redis_url": "redis://127.0.0.1:1/0",
        "redis": RedisSettings(),
        "log": LogSettings(),
        "environment": {"PREFECT_API_URL": "http://127.0.0.1:1/api"},
        "shelf": Path("/nowhere"),
    }
    return Assignment(**(own | fields))


class Piped(RunProcess):
    """A run process without a process: what it ``says`` is heard, and it has ended when the test says so."""

    def __init__(self, run_id: str) -> None:
        reports, self._says = os.pipe()
        self._orders, orders = os.pipe()
        for descriptor in (reports, self._orders):
            os.set_blocking(descriptor, False)
        super().__init__(run_id, NOBODY, PipeLines(reports), orders)
        self.told_lines = PipeLines(self._orders)
        self.terminated = self.killed = self._closed = False
        self.looks = 0
        """How often it is looked at before its end is seen."""

    def says(self, *messages: ProcessMessage) -> None:
        for message in messages:
            write(self._says, message)

    def told(self) -> list[ProcessMessage]:
        """The orders that it was sent since the last call."""
        return self.told_lines.read()

    def ends(self, status: int = 0) -> None:
        self.status = status

    def reap(self) -> bool:
        self.looks -= 1
        return self.status is not None and self.looks < 0

    def terminate(self) -> None:
        self.terminated = True

    def kill(self) -> None:
        self.killed = True
        if self.status is None:
            self.status = 9

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            super().close()

    def leave(self) -> None:
        """Close all that is left of it."""
        self.close()
        for descriptor in (self._says, self._orders):
            os.close(descriptor)
