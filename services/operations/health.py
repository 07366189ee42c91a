"""The report of each role instance in Redis, which `sluice status` and the health checks read."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, FiniteFloat

from services.store.connection import AsyncRedis
from services.store.keys import Key
from services.store.unreadable import noted, readable

REPORTS: Final = "sluice:role:"
"""Prefix of a report's key; the role and the instance follow."""

SILENT_SECONDS: Final = 10.0
"""How long a report is valid: an instance that is silent for longer, five reports missed, is not ready."""

REMEMBERED_SECONDS: Final = 600
"""How long an instance that went silent without being stopped is listed."""


async def read_reports(redis: AsyncRedis) -> list[dict[str, Any]]:
    """Return the reports of every instance that was not stopped, ordered by role and instance.

    ``silent_seconds`` is the time since the last report (by Redis' clock), None for an instance that reports.
    """
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


class _PartStatus(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")

    ready: bool = True
    reasons: dict[str, str] = {}


class _Report(BaseModel):
    model_config = ConfigDict(strict=True)

    role: str
    instance: str
    ready: bool
    degraded: list[str]
    parts: dict[str, _PartStatus]
    started: Annotated[str, AfterValidator(datetime.fromisoformat)]
    at: FiniteFloat


def _report(value: bytes | str) -> dict[str, Any]:
    """Parse and check a report; raises `ValueError` or `TypeError` for anything else."""
    _Report.model_validate_json(value)
    report: dict[str, Any] = json.loads(value)
    for name, part in report["parts"].items():
        if name.startswith("files:") and not isinstance(part.get("path"), str):
            raise TypeError("a watched folder without its path")
    return report


KEYS: Final = (Key(REPORTS + "*", "string", "report of a role", f"{REMEMBERED_SECONDS} s", _report),)
