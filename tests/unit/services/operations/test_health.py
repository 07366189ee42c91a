"""The reports of the roles as they are read: who reports, who has fallen silent, and what is no report."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from services.operations.health import REMEMBERED_SECONDS, REPORTS, SILENT_SECONDS, read_reports
from services.store.connection import AsyncRedis


def report(role: str, instance: str, **more: Any) -> dict[str, Any]:
    started = datetime.now(UTC).isoformat()
    told = {
        "role": role,
        "instance": instance,
        "ready": True,
        "degraded": [],
        "parts": {},
        "started": started,
        "at": 1.5,
    }
    return {**told, **more}


async def write(redis: AsyncRedis, told: dict[str, Any], *, seconds_ago: float = 0) -> None:
    key = f"{REPORTS}{told['role']}:{told['instance']}"
    await redis.set(key, json.dumps(told), px=int((REMEMBERED_SECONDS - seconds_ago) * 1000))


async def test_reports_come_by_role_and_instance(redis: AsyncRedis) -> None:
    for role, instance in (("router", "b"), ("router", "a"), ("listeners", "c")):
        await write(redis, report(role, instance))
    found = await read_reports(redis)
    assert [(one["role"], one["instance"], one["silent_seconds"]) for one in found] == [
        ("listeners", "c", None), ("router", "a", None), ("router", "b", None)
    ]  # fmt: skip


async def test_an_instance_that_says_nothing_is_silent_for_so_long(redis: AsyncRedis) -> None:
    await write(redis, report("router", "a"), seconds_ago=SILENT_SECONDS + 50)
    await write(redis, report("router", "b"), seconds_ago=SILENT_SECONDS - 5)
    silent, well = await read_reports(redis)
    assert SILENT_SECONDS + 50 <= silent["silent_seconds"] < SILENT_SECONDS + 200
    assert well["silent_seconds"] is None or well["silent_seconds"] < SILENT_SECONDS + 100


async def test_without_reports_there_are_none(redis: AsyncRedis) -> None:
    assert await read_reports(redis) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"ready": "yes"}, {"degraded": "all"}, {"parts": {"a": 1}}, {"parts": {"a": {"ready": "no"}}},
        {"parts": {"files:inbox": {}}}, {"parts": {"a": {"reasons": {"x": 1}}}}, {"started": "yesterday"},
        {"at": "now"}, {"pid": 1, "ready": None},
    ],
)  # fmt: skip
async def test_what_is_no_report_is_passed_over(redis: AsyncRedis, wrong: dict[str, Any]) -> None:
    await redis.set(f"{REPORTS}router:a", json.dumps(report("router", "a", **wrong)), ex=REMEMBERED_SECONDS)
    await write(redis, report("router", "b"))
    assert [one["instance"] for one in await read_reports(redis)] == ["b"]


async def test_a_key_that_holds_something_else_hides_no_other(redis: AsyncRedis) -> None:
    await redis.lpush(f"{REPORTS}router:a", "x")
    await redis.set(f"{REPORTS}router:b", b"\xff{", ex=REMEMBERED_SECONDS)
    await redis.set(f"{REPORTS}router:c", json.dumps(report("router", "c")))
    await write(redis, report("router", "d"))
    assert [one["instance"] for one in await read_reports(redis)] == ["d"]
