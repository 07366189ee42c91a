"""The report of each role instance in Redis, which `sluice status` and the health checks read."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from events.errors import Backpressure, TransientError
from services.common.metrics import REGISTRY
from services.store.connection import AsyncRedis, translated
from services.store.keys import Key
from services.store.unreadable import noted, readable

REPORTS: Final = "sluice:role:"
"""Prefix of a report's key; behind it the role and the instance."""

INTERVAL_SECONDS: Final = 2.0
STARTING_SECONDS: Final = 0.1
STARTING_LIMIT_SECONDS: Final = 10.0
"""How often, and for how long, a new instance that is not ready reports: whoever starts it waits for that."""

SILENT_SECONDS: Final = 10.0
"""How long a report is valid: an instance that is silent for longer, five reports missed, is not ready."""

REMEMBERED_SECONDS: Final = 600
"""How long an instance that went silent without being stopped is listed."""

log = structlog.get_logger()

Status = Callable[[], Mapping[str, Any]]


class Reporter:
    """Reports one role instance, from the statuses of its parts, every two seconds; more often while it starts.

    A part's status is a JSON mapping. Its ``ready`` (default true) must hold for the role to be ready; with
    ``degraded`` (a sentence) the role is ready but says what is wrong.
    """

    def __init__(self, *, role: str, redis: AsyncRedis, parts: Mapping[str, Status]) -> None:
        self._redis = redis
        self._parts = parts
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
            "metrics": generate_latest(REGISTRY).decode(),
            "at": time.time(),
        }

    async def run(self) -> None:
        """Report until cancelled; retries while Redis is unreachable."""
        began = time.monotonic()
        while True:
            report = self.report()
            try:
                with translated():
                    await self._redis.set(self.key, json.dumps(report), ex=REMEMBERED_SECONDS)
            except (TransientError, Backpressure) as error:
                log.debug("status not reported", error=str(error))
            starting = not report["ready"] and time.monotonic() - began < STARTING_LIMIT_SECONDS
            await asyncio.sleep(STARTING_SECONDS if starting else INTERVAL_SECONDS)

    async def say_goodbye(self) -> None:
        """Delete the report: the instance was stopped, and does not count as silent."""
        with translated():
            await asyncio.wait_for(self._redis.delete(self.key), 1)


def _told(status: Status) -> dict[str, Any]:
    try:
        told: dict[str, Any] = json.loads(json.dumps(dict(status())))
    except Exception as error:
        log.exception("the status of a part failed")
        return {"ready": False, "degraded": f"its state cannot be told: {type(error).__name__} {error}"}
    return told


async def read_reports(redis: AsyncRedis) -> list[dict[str, Any]]:
    """Return the reports of every instance that was not stopped, ordered by role and instance.

    ``silent_seconds`` is the time since the last report (by Redis' clock), None for an instance that reports.
    """
    with translated():
        keys = sorted([key async for key in redis.scan_iter(match=REPORTS + "*", count=1000)])
        pipeline = redis.pipeline(transaction=False)
        for key in keys:
            pipeline.get(key)
            pipeline.pttl(key)
        answers = await pipeline.execute(raise_on_error=False) if keys else []
    found = []
    for key, value, left_ms in zip(keys, answers[::2], answers[1::2], strict=True):
        if isinstance(value, Exception):  # the key holds no text
            noted.add(key)
        elif value is not None and left_ms >= 0:
            silent = REMEMBERED_SECONDS - left_ms / 1000
            told = {"silent_seconds": silent if silent > SILENT_SECONDS else None}
            found += [{**report, **told} for report in readable(key, _report, [value])]
    return found


def _report(value: bytes | str) -> dict[str, Any]:
    """Parse and check a report; raises `TypeError` for anything else."""
    report: dict[str, Any] = json.loads(value)
    texts = [report["role"], report["instance"], report["metrics"], *report["degraded"], *report["parts"]]
    if not all(isinstance(one, str) for one in texts) or not isinstance(report["degraded"], list):
        raise TypeError("not a role's report")
    if not all(
        isinstance(one, bool) for one in (report["ready"], *(part.get("ready", True) for part in parts_of(report)))
    ):
        raise TypeError("not a role's report")
    datetime.fromisoformat(report["started"])
    float(report["at"])
    if any(name.startswith("files:") and not isinstance(part["path"], str) for name, part in report["parts"].items()):
        raise TypeError("not a role's report")
    list(text_string_to_metric_families(report["metrics"]))
    return report


def parts_of(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the statuses of a report's parts; raises `TypeError` for anything else."""
    parts = list(report["parts"].values())
    if not all(isinstance(part, dict) for part in parts):
        raise TypeError("not a role's report")
    return parts


KEYS: Final = (Key(REPORTS + "*", "string", "report of a role", f"{REMEMBERED_SECONDS} s", _report),)
