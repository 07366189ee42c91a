"""Reports a role instance to Redis."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import structlog

from events.errors import Backpressure, TransientError
from services.common.metrics import Gains
from services.common.reasons import obstacles
from services.home import ready_file
from services.operations.health import REMEMBERED_SECONDS, REPORTS
from services.operations.metric_totals import MetricTotals
from services.store.connection import AsyncRedis

INTERVAL_SECONDS: Final = 2.0
COUNT_SECONDS: Final = 5.0
"""How often counts are added to the totals: reading the series of fifty rules takes some milliseconds."""
STARTING_SECONDS: Final = 0.1
STARTING_LIMIT_SECONDS: Final = 10.0
"""How often, and for how long, a new instance that is not ready reports more often, because `sluice up` waits for it.
"""

log = structlog.get_logger()

Status = Callable[[], Mapping[str, Any]]


class Reporter:
    """Reports one role instance, from the statuses of its parts, every two seconds; more often while it starts.

    A part's status is a JSON mapping. Its ``ready`` (default true) must hold for the role to be ready; with
    ``degraded`` (a sentence) the role is ready but says what is wrong.
    """

    def __init__(
        self, *, role: str, redis: AsyncRedis, parts: Mapping[str, Status], ready_file: Path | None = None
    ) -> None:
        """``ready_file``: a file on this machine that also says whether the role is ready."""
        self._redis = redis
        self._ready_file = ready_file
        self._parts = parts
        self._totals = MetricTotals(redis)
        self._gains = Gains()
        self._count_at = 0.0
        self._role = role
        self._started = datetime.now(UTC).isoformat()
        self.instance = f"{socket.gethostname()}-{os.getpid()}"

    @property
    def key(self) -> str:
        """The report's key."""
        return f"{REPORTS}{self._role}:{self.instance}"

    def report(self) -> dict[str, Any]:
        """Return the role's present state; a part whose status raises is not ready."""
        parts = {name: _told(status) for name, status in self._parts.items()}
        degraded = [f"{name}: {part['degraded']}" for name, part in parts.items() if part.get("degraded")]
        return {
            "role": self._role,
            "instance": self.instance,
            "pid": os.getpid(),
            "started": self._started,
            "ready": all(part.get("ready", True) for part in parts.values()),
            "degraded": degraded,
            "parts": parts,
            "at": time.time(),
        }

    async def run(self) -> None:
        """Report until cancelled; retries while Redis is unreachable."""
        began = time.monotonic()
        while True:
            report = self.report()
            problem = "; ".join(obstacles(report["parts"])) or None
            try:
                await self._redis.set(self.key, json.dumps(report), ex=REMEMBERED_SECONDS)
                if time.monotonic() >= self._count_at:
                    await self._count()
            except (TransientError, Backpressure) as error:
                problem = str(error)
                log.debug("status not reported", error=str(error))
            self._write(problem)
            starting = not report["ready"] and time.monotonic() - began < STARTING_LIMIT_SECONDS
            await asyncio.sleep(STARTING_SECONDS if starting else INTERVAL_SECONDS)

    def _write(self, problem: str | None) -> None:
        try:
            if self._ready_file is not None:
                ready_file.write(self._ready_file, problem)
        except OSError as error:
            log.warning("the ready file cannot be written", file=str(self._ready_file), error=str(error))

    async def say_goodbye(self) -> None:
        """Delete the report: the instance was stopped, and does not count as silent."""
        await asyncio.wait_for(self._redis.delete(self.key), 1)
        await asyncio.wait_for(self._count(), 1)

    async def _count(self) -> None:
        gains = self._gains.now()
        await self._totals.add(gains)
        self._gains.added(gains)
        self._count_at = time.monotonic() + COUNT_SECONDS


def _told(status: Status) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(json.dumps(dict(status())))
    except Exception as error:
        log.exception("the status of a part failed")
        return {"ready": False, "degraded": f"its state cannot be told: {type(error).__name__} {error}"}
    return told
