"""What an executor says of itself: how fast runs start, what holds them up, and whom it tells of what its slots say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import pytest_asyncio

from config.runs import ExecutorSettings
from config.settings import LogSettings, RedisSettings
from services.common.reasons import REASONS
from services.executor import executor as executor_module
from services.executor.executor import Executor, _latency, _without_process
from services.executor.messages import (
    FlowSource,
    FlowStarted,
    ImportFindings,
    RunBegan,
    RunFinalized,
    SlotIdle,
    SlotReady,
)
from services.executor.pool.slots import SlotState
from services.prefect_api.client import PrefectApi

RUN = "00000001-0000-4000-8000-000000000000"
STATE = "00000002-0000-4000-8000-000000000000"
BEGAN = RunBegan(RUN, 4, at=100.0, queued=99.0)


class Prefect(PrefectApi):
    """An address that nothing here asks."""

    def __init__(self) -> None: ...

    @property
    def url(self) -> str:
        return "http://127.0.0.1:1/api"


class Line:
    """Takes the place of a connection to a slot."""

    def is_closing(self) -> bool:
        return True


@pytest_asyncio.fixture
async def executor(redis: object, valkey_url: str, tmp_path: Path) -> AsyncIterator[Executor]:
    made = Executor(
        settings=ExecutorSettings(slots=1, waiting=1),
        prefect=Prefect(),
        redis_url=valkey_url,
        redis_settings=RedisSettings(),
        log_settings=LogSettings(),
        home=tmp_path,
        held_seconds=30.0,
    )
    yield made
    made._pool.slots.by_pid.clear()
    await made._pool.end(finish_seconds=0)
    made._enqueuer.close()


def _at(monkeypatch: pytest.MonkeyPatch, now: float) -> None:
    """The clocks that the executor reads."""
    monkeypatch.setattr(executor_module, "time", SimpleNamespace(time=lambda: now, monotonic=lambda: now))


def _has(executor: Executor, number: int, run_id: str | None = None, *, waiting: bool = False) -> None:
    slot = SlotState(SlotReady(number, 1, number, client=number), cast(asyncio.StreamWriter, Line()), waiting=waiting)
    slot.run = None if run_id is None else RunBegan(run_id, 4, at=100.0, queued=99.0)
    executor._pool.slots.by_pid[number] = slot


async def test_an_executor_without_a_slot_or_an_ear_is_not_ready(executor: Executor) -> None:
    assert executor.status()["ready"] is False
    _has(executor, 0)
    status = executor.status()
    assert (status["slots_ready"], status["running"], status["ready"]) == (1, 0, False)


async def test_the_status_names_the_runs_and_since_when_they_run(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    _at(monkeypatch, 103.25)
    _has(executor, 7, RUN, waiting=True)
    status = executor.status()
    assert status["runs"] == [{"run": RUN, "slot": 7, "seconds": 3.2, "waits": True}]
    assert (status["running"], status["paused"]) == (1, 1)


async def test_slots_that_waiting_runs_hold_are_a_trouble_only_once_it_lasts(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    _at(monkeypatch, 1000.0)
    _has(executor, 0, RUN, waiting=True)
    assert "reasons" not in executor.status(), "one more may wait"
    _has(executor, 1, STATE, waiting=True)
    assert set(executor.status()["reasons"]) == {"slots-full"}
    _at(monkeypatch, 1030.0)
    (code,) = executor.status()["reasons"]
    assert code == "slots-held"
    assert "2 runs that wait" in executor.status()["reasons"][code]
    executor._pool.slots.by_pid.clear()
    assert "reasons" not in executor.status()
    for number in (0, 1):
        _has(executor, number, RUN, waiting=True)
    assert set(executor.status()["reasons"]) == {"slots-full"}, "it begins anew"
    assert {"slots-full", "slots-held"} <= set(REASONS)


async def test_a_flow_that_does_not_import_is_named_with_its_problem(executor: Executor) -> None:
    source = FlowSource("/p", "a.py:f")
    executor._pool.set_sources([source])
    executor._pool.files.note(ImportFindings(source, "no module named x", ("/p/a.py",), ()))
    status = executor.status()
    assert status["broken_flows"] == {"/p/a.py:f": "no module named x"}
    assert status["reasons"]["flow-broken"] == "the flow /p/a.py:f does not import: no module named x"


async def test_what_a_slot_says_is_counted_and_told_to_whom_it_concerns(
    executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[Any, ...]] = []
    monkeypatch.setattr(executor._intake, "not_before", lambda *args: told.append(args))
    monkeypatch.setattr(executor._reconciler, "finalized", lambda run_id, *, ok: told.append((run_id, ok)))
    monkeypatch.setattr(executor._reconciler, "orphaned", lambda run: told.append((run.run_id,)))
    _at(monkeypatch, 101.0)
    executor._heard(BEGAN, BEGAN)
    for at in (100.5, 101.5):
        executor._heard(FlowStarted(at), BEGAN)
    executor._heard(FlowStarted(100.0), None)
    executor._heard(SlotIdle(RUN, STATE), None)
    executor._heard(SlotIdle(RUN, STATE, early_until=50.0), None)
    executor._heard(RunFinalized(RUN, ok=False), None)
    executor._orphaned(BEGAN)
    assert told == [(RUN, STATE, datetime.fromtimestamp(50, UTC)), (RUN, False), (RUN,)]
    status = executor.status()
    assert status["starts_per_minute"] == 1
    assert status["start_latency_seconds"]["p50"] == 2.0


def test_times_are_told_once_there_are_two() -> None:
    assert _latency([]) is None
    assert _latency([1.0]) is None
    found = _latency([float(number) for number in range(1, 101)])
    assert found is not None
    assert 50 <= found["p50"] <= 51
    assert found["p99"] >= 99


def test_runs_without_a_process_are_told_with_one_of_them() -> None:
    assert _without_process([]) is None
    assert _without_process([RUN, STATE]) == (
        f"2 runs are Pending, Running or Paused in Prefect, and no process executes them, such as {RUN}"
    )


async def test_it_takes_longer_to_end_than_its_runs_may(executor: Executor) -> None:
    assert executor.stop_seconds > ExecutorSettings().stop_seconds
