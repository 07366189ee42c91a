"""What a run process is told by its deployment, what it makes of errors, and how it hears its slot."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from services.executor.messages import ProcessMessage, RunFinished, RunLimits, SuspendRun, TakeIntent
from services.executor.pipes import write
from services.executor.process import flow_run_process
from services.executor.process.flow_run_process import (
    _drive,
    _file_variables,
    _limits,
    is_unreachable,
    listen_for_orders,
)
from sluice.protocol import FILE_VARIABLE, FOLDERS_VARIABLE
from tests.support.waiting import wait_until


def _answered(status: int) -> PrefectHTTPStatusError:
    request = httpx.Request("POST", "http://127.0.0.1:1/api/flow_runs/")
    return PrefectHTTPStatusError("", request=request, response=httpx.Response(status, request=request))


@pytest.mark.parametrize(
    ("error", "later"),
    [
        (_answered(500), True),
        (_answered(503), True),
        (_answered(408), True),
        (_answered(429), True),
        (_answered(404), False),
        (_answered(409), False),
        (_answered(422), False),
        (httpx.ConnectError("refused"), True),
        (httpx.ReadTimeout("silent"), True),
        (ObjectNotFound(ValueError()), False),
        (ValueError("a fault"), False),
        (SystemExit(1), False),
    ],
    ids=lambda value: f"{getattr(value, 'response', None) or type(value).__name__}",
)
def test_a_prefect_that_may_answer_later_is_told_from_one_that_has_answered(error: BaseException, later: bool) -> None:
    assert is_unreachable(error) is later


@pytest.mark.parametrize(
    ("variables", "limits"),
    [
        ({}, RunLimits(None, None)),
        ({"sluice_memory_mb": 512, "sluice_time_seconds": "90"}, RunLimits(512.0, 90.0)),
        ({"sluice_memory_mb": 0, "sluice_time_seconds": None}, RunLimits(None, None)),
        ({"sluice_on_lost": "restart"}, RunLimits(None, None, restarts=True)),
        ({"sluice_on_lost": "crash"}, RunLimits(None, None)),
    ],
)
def test_the_limits_of_a_run_are_those_of_its_deployment(variables: dict[str, Any], limits: RunLimits) -> None:
    assert _limits(variables) == limits


def test_a_run_may_read_the_folders_of_the_project_and_of_its_deployment() -> None:
    told = _file_variables({"sluice_folders": ["/more"]}, {FOLDERS_VARIABLE: '["/in"]'})
    assert json.loads(told[FOLDERS_VARIABLE]) == ["/in", "/more"]
    assert FILE_VARIABLE not in told
    told = _file_variables({"sluice_file": {"path": "/in/a", "version": "1-2-3"}}, {})
    assert json.loads(told[FOLDERS_VARIABLE]) == []
    assert json.loads(told[FILE_VARIABLE]) == {"path": "/in/a", "version": "1-2-3"}


def test_a_flow_of_any_kind_is_run_to_its_end() -> None:
    steps: list[str] = []

    async def coroutine() -> None:
        steps.append("coroutine")

    def generator() -> Iterator[int]:
        yield 1
        steps.append("generator")

    async def async_generator() -> AsyncIterator[int]:
        yield 1
        steps.append("async generator")

    for result in (coroutine(), generator(), async_generator(), 5, None):
        _drive(result)
    assert steps == ["coroutine", "generator", "async generator"]


class Suspensions:
    """Notes the suspensions that the slot told of."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, datetime]] = []

    def ask(self, state_id: str, occurred: datetime) -> None:
        self.asked.append((state_id, occurred))


@pytest.fixture
def orders() -> Iterator[tuple[int, int]]:
    """The process's end of its orders, and the slot's."""
    ends = os.pipe()
    yield ends
    os.close(ends[1])
    wait_until(lambda: "sluice-orders" not in {thread.name for thread in threading.enumerate()})
    os.close(ends[0])


def test_the_slots_orders_are_heard_until_the_meaning_of_the_end_is_known(
    orders: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    intents: list[str] = []
    monkeypatch.setattr(flow_run_process, "set_intent", intents.append)
    reports: list[ProcessMessage] = []
    suspensions, now = Suspensions(), datetime.now(UTC)
    listen_for_orders(orders[0], reports.append, suspensions)
    for message in (SuspendRun("run", "s1", now), RunFinished(), TakeIntent("reschedule")):
        write(orders[1], message)
    wait_until(lambda: reports)
    assert suspensions.asked == [("s1", now)]
    assert intents == ["reschedule"], "noted before it is confirmed: the signal comes after the confirmation"
    assert reports == [TakeIntent("reschedule")]


def test_a_process_whose_slot_is_gone_stops_listening(orders: tuple[int, int]) -> None:
    reports: list[ProcessMessage] = []
    listen_for_orders(orders[0], reports.append, Suspensions())
    assert reports == []
