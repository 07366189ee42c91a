"""The report of each role instance in Redis, which `sluice status` and the health checks read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from services.store.connection import AsyncRedis, translated
from services.store.keys import Key
from services.store.unreadable import noted, readable

REPORTS: Final = "sluice:role:"
"""Prefix of a report's key; behind it the role and the instance."""

SILENT_SECONDS: Final = 10.0
"""How long a report is valid: an instance that is silent for longer, five reports missed, is not ready."""

REMEMBERED_SECONDS: Final = 600
"""How long an instance that went silent without being stopped is listed."""


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
    texts = [report["role"], report["instance"], *report["degraded"], *report["parts"]]
    if not all(isinstance(one, str) for one in texts) or not isinstance(report["degraded"], list):
        raise TypeError("not a role's report")
    if not all(
        isinstance(one, bool) for one in (report["ready"], *(part.get("ready", True) for part in parts_of(report)))
    ):
        raise TypeError("not a role's report")
    if not all(_are_reasons(part.get("reasons", {})) for part in parts_of(report)):
        raise TypeError("not a role's report")
    datetime.fromisoformat(report["started"])
    float(report["at"])
    if any(name.startswith("files:") and not isinstance(part["path"], str) for name, part in report["parts"].items()):
        raise TypeError("not a role's report")
    return report


def _are_reasons(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(sentence, str) for sentence in value.values())


def parts_of(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the statuses of a report's parts; raises `TypeError` for anything else."""
    parts = list(report["parts"].values())
    if not all(isinstance(part, dict) for part in parts):
        raise TypeError("not a role's report")
    return parts


KEYS: Final = (Key(REPORTS + "*", "string", "report of a role", f"{REMEMBERED_SECONDS} s", _report),)
