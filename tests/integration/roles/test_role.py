"""A role runs its parts until it is told to stop, and does not go on without one of them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from typing import Any

import pytest

from services.health import read_reports
from services.role import run_parts
from services.store.connection import AsyncRedis
from tests.support.waiting import eventually


class Steady:
    def __init__(self) -> None:
        self.finished = False

    async def run(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            self.finished = True

    def status(self) -> Mapping[str, Any]:
        return {"ready": True, "degraded": "it is a drill"}


class Failing(Steady):
    async def run(self) -> None:
        raise ValueError("no such thing")


async def test_sigterm_ends_the_parts_and_takes_the_report_away(redis: AsyncRedis) -> None:
    part = Steady()
    role = asyncio.create_task(run_parts("drill", {"steady": part}, redis=redis))
    (report,) = await eventually(lambda: read_reports(redis))
    assert report["role"] == "drill"
    assert report["ready"]
    assert report["degraded"] == ["steady: it is a drill"]
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(role, 5)
    assert part.finished
    assert await read_reports(redis) == []


async def test_a_part_that_fails_ends_the_role_and_the_other_parts(redis: AsyncRedis) -> None:
    part = Steady()
    with pytest.raises(RuntimeError, match="the part failing of drill ended: no such thing"):
        await run_parts("drill", {"steady": part, "failing": Failing()}, redis=redis)
    assert part.finished
