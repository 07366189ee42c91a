"""What each role says of itself: a short-lived report in Redis that `sluice status` and the health checks read."""

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

from events.errors import Backpressure, TransientError
from services.metrics import REGISTRY
from services.store.connection import AsyncRedis, translated

REPORTS: Final = "sluice:role:"
"""Prefix of a report's key; behind it the role and the instance."""

INTERVAL_SECONDS: Final = 2.0
TTL_SECONDS: Final = 10
"""A role that is silent for longer is gone: five reports missed."""

log = structlog.get_logger()

Status = Callable[[], Mapping[str, Any]]


class Reporter:
    """Reports one role instance, from the statuses of its parts, every two seconds.

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
        """The role's state of this moment."""
        parts = {name: dict(status()) for name, status in self._parts.items()}
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
        """Report until cancelled, then take the report away; an unreachable Redis is waited out."""
        try:
            while True:
                try:
                    with translated():
                        await self._redis.set(self.key, json.dumps(self.report()), ex=TTL_SECONDS)
                except (TransientError, Backpressure) as error:
                    log.debug("status not reported", error=str(error))
                await asyncio.sleep(INTERVAL_SECONDS)
        finally:
            with translated():
                await asyncio.wait_for(asyncio.shield(self._redis.delete(self.key)), 1)


async def read_reports(redis: AsyncRedis) -> list[dict[str, Any]]:
    """The reports of every live role instance, ordered by role and instance."""
    with translated():
        keys = sorted([key async for key in redis.scan_iter(match=REPORTS + "*", count=1000)])
        values = await redis.mget(keys) if keys else []
    return [json.loads(value) for value in values if value is not None]
