"""What an instance of a role reports of itself, and that a part which cannot tell its state is not ready."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from services.operations.health import read_reports
from services.operations.reporter import Reporter
from services.store.connection import AsyncRedis
from tests.support.sources import running
from tests.support.waiting import eventually


def reporter(redis: AsyncRedis, *, ready_file: Path | None = None, **parts: dict[str, Any]) -> Reporter:
    statuses = {name: (lambda told=told: told) for name, told in parts.items()}
    return Reporter(role="listeners", redis=redis, parts=statuses, ready_file=ready_file)


async def test_an_instance_is_ready_when_all_of_its_parts_are(redis: AsyncRedis) -> None:
    told = reporter(redis, one={"ready": True}, other={"count": 5}).report()
    assert (told["role"], told["pid"], told["ready"], told["degraded"]) == ("listeners", os.getpid(), True, [])
    assert told["parts"] == {"one": {"ready": True}, "other": {"count": 5}}
    assert not reporter(redis, one={"ready": True}, other={"ready": False}).report()["ready"]


async def test_what_is_wrong_with_a_part_is_told_with_its_name(redis: AsyncRedis) -> None:
    told = reporter(redis, one={"degraded": "it is slow"}, other={"degraded": ""}).report()
    assert (told["ready"], told["degraded"]) == (True, ["one: it is slow"])


async def test_a_part_that_cannot_tell_its_state_is_not_ready(redis: AsyncRedis) -> None:
    def broken() -> dict[str, Any]:
        raise ZeroDivisionError("who divides here")

    parts = {"broken": broken, "odd": lambda: {"at": object()}, "well": lambda: {"ready": True}}
    told = Reporter(role="listeners", redis=redis, parts=parts).report()
    assert not told["ready"]
    assert told["degraded"][0] == "broken: its state cannot be told: ZeroDivisionError who divides here"
    assert told["degraded"][1].startswith("odd: its state cannot be told: TypeError")
    assert told["parts"]["well"] == {"ready": True}


async def test_a_report_is_in_redis_until_the_instance_says_goodbye(redis: AsyncRedis, tmp_path: Path) -> None:
    told = reporter(redis, ready_file=tmp_path / "ready", one={"ready": True})

    async def read() -> list[dict[str, Any]]:
        return await read_reports(redis)

    async with running(told):
        (found,) = await eventually(read, what="the report is there")
        assert (found["instance"], found["silent_seconds"]) == (told.instance, None)

        async def written() -> bool:
            return (tmp_path / "ready").exists()

        await eventually(written, what="the ready file is there")
    await told.say_goodbye()
    assert await read_reports(redis) == []


async def test_a_ready_file_that_cannot_be_written_does_not_end_the_reports(redis: AsyncRedis, tmp_path: Path) -> None:
    told = reporter(redis, ready_file=tmp_path / "no" / "folder" / "ready", one={"ready": True})
    async with running(told):

        async def read() -> list[dict[str, Any]]:
            return await read_reports(redis)

        assert await eventually(read, what="the report is there")
