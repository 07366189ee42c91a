"""A role runs its parts until it is told to stop, and does not go on without one of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from services.common import metrics
from services.home.ready_file import problem_in
from services.operations import role
from services.operations.health import read_reports
from services.operations.metric_totals import MetricTotals
from services.operations.role import run_parts
from services.store.connection import AsyncRedis
from tests.support.waiting import PATIENCE_SECONDS, eventually


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
    running = asyncio.create_task(run_parts("drill", {"steady": part}, redis=redis))
    (report,) = await eventually(lambda: read_reports(redis))
    assert report["role"] == "drill"
    assert report["ready"]
    assert report["degraded"] == ["steady: it is a drill"]
    drill = metrics.routed._value.get()
    await eventually(lambda: _total(redis, "sluice_events_routed_total"))
    metrics.routed.inc(5)  # after the last report
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, PATIENCE_SECONDS)
    assert part.finished
    assert await read_reports(redis) == []
    assert await _total(redis, "sluice_events_routed_total") == (drill + 5,)


async def _total(redis: AsyncRedis, name: str) -> tuple[float, ...]:
    return tuple(value for series, value in await MetricTotals(redis).read() if series.name == name)


async def test_a_part_whose_state_cannot_be_told_is_not_ready(redis: AsyncRedis, tmp_path: Path) -> None:
    class Untold(Steady):
        def status(self) -> Mapping[str, Any]:
            raise KeyError("state")

    file = tmp_path / "ready"
    parts = {"steady": Steady(), "untold": Untold()}
    running = asyncio.create_task(run_parts("drill", parts, redis=redis, ready_file=file))
    (report,) = await eventually(lambda: read_reports(redis))
    assert not report["ready"]
    assert await eventually(lambda: asyncio.sleep(0, problem_in(file))) == "untold: not ready yet"
    assert problem_in(file, alive=True) is None
    assert "untold: its state cannot be told: KeyError 'state'" in report["degraded"]
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(running, PATIENCE_SECONDS)


class Stubborn(Steady):
    """Does not end until it is ``released``, however often it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.released = asyncio.Event()

    async def run(self) -> None:
        while not self.released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self.released.wait()


class Swallowing(Steady):
    """Ends at the second cancellation."""

    told = 0

    async def run(self) -> None:
        while self.told < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.told += 1


async def test_a_part_that_does_not_end_does_not_keep_the_role_from_ending(
    redis: AsyncRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(role, "STOP_SECONDS", 0.2)
    monkeypatch.setattr(role, "AGAIN_SECONDS", 0.2)
    steady, stubborn = Steady(), Stubborn()
    running = asyncio.create_task(run_parts("drill", {"steady": steady, "stubborn": stubborn}, redis=redis))
    await eventually(lambda: read_reports(redis))
    os.kill(os.getpid(), signal.SIGTERM)
    done, _ = await asyncio.wait({running}, timeout=PATIENCE_SECONDS)
    stubborn.released.set()
    assert done
    assert steady.finished
    assert await read_reports(redis) == []


async def test_a_part_has_the_time_to_end_that_it_says_it_needs(
    redis: AsyncRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second cancellation would interrupt what it finishes: an executor that hands runs back, say."""

    class Thorough(Stubborn):
        stop_seconds = 600.0
        told = 0

        async def run(self) -> None:
            while not self.released.is_set():
                try:
                    await self.released.wait()
                except asyncio.CancelledError:
                    self.told += 1

    monkeypatch.setattr(role, "STOP_SECONDS", 0.1)
    monkeypatch.setattr(role, "AGAIN_SECONDS", 0.1)
    hasty, thorough = Swallowing(), Thorough()
    running = asyncio.create_task(run_parts("drill", {"hasty": hasty, "thorough": thorough}, redis=redis))
    await eventually(lambda: read_reports(redis))
    os.kill(os.getpid(), signal.SIGTERM)
    await eventually(lambda: asyncio.sleep(0, hasty.told == 2))
    assert not running.done()
    assert (await read_reports(redis))[0]["role"] == "drill"  # it is not gone while a part of it works
    thorough.released.set()
    await asyncio.wait_for(running, PATIENCE_SECONDS)
    assert thorough.told == 1


async def test_a_part_that_fails_ends_the_role_and_the_other_parts(redis: AsyncRedis) -> None:
    part = Steady()
    with pytest.raises(RuntimeError, match="the part failing of drill ended: no such thing"):
        await run_parts("drill", {"steady": part, "failing": Failing()}, redis=redis)
    assert part.finished
    (report,) = await read_reports(redis)  # nobody told it to go: it is missed
    assert report["role"] == "drill"
