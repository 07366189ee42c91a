"""What is told to Prefect's event feed waits while Prefect has runs to create, and not for ever."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog

from events.action import RunDeployment
from events.errors import Refused, TransientError
from services.dispatch import announcer
from services.dispatch.announcer import Announcer
from services.prefect_api.client import PrefectApi
from services.prefect_api.events import emit
from services.store.runs.dispatch_queues import dispatch_of
from tests.integration.delivery.world import order
from tests.support.waiting import eventually


@asynccontextmanager
async def _running(one: Announcer) -> AsyncIterator[None]:
    task = asyncio.create_task(one.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _announce(one: Announcer) -> None:
    event = order(1)
    action = RunDeployment(rule="pay", identities=(event.id,), deployment="a/b")
    one.announce(dispatch_of(action, [(event, "1-0")]), str(uuid.uuid4()))


async def _published(one: Announcer) -> bool:
    return one.status()["published"] == 1


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcer, "_GATHER_SECONDS", 0.02)


async def test_announcements_wait_while_the_dispatcher_is_busy(prefect: PrefectApi) -> None:
    looks = 0

    def busy() -> bool:
        nonlocal looks
        looks += 1
        return looks < 20

    one = Announcer(prefect=prefect)
    one.give_way(busy)
    async with _running(one):
        _announce(one)
        await eventually(lambda: _published(one))
    assert looks == 20


async def test_announcements_do_not_wait_for_ever(prefect: PrefectApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcer, "_PATIENCE_SECONDS", 0.2)
    one = Announcer(prefect=prefect)
    one.give_way(lambda: True)
    async with _running(one):
        _announce(one)
        await eventually(lambda: _published(one))


async def test_a_long_backlog_is_told_as_a_whole_when_patience_ends(
    prefect: PrefectApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else more would come in while runs are created without a pause than goes out, until the oldest are forgotten."""
    monkeypatch.setattr(announcer, "_PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(announcer, "_AT_ONCE", 2)
    asked_in_between = 0

    def busy() -> bool:
        nonlocal asked_in_between
        asked_in_between += 0 < one.status()["published"] < 7
        return True

    one = Announcer(prefect=prefect)
    one.give_way(busy)
    for _ in range(7):
        _announce(one)
    async with _running(one):
        await eventually(lambda: _all_published(one))
    assert one.status()["published"] == 7
    assert asked_in_between == 0


async def _all_published(one: Announcer) -> bool:
    return one.status()["waiting"] == 0


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcer, "_AT_ONCE", 4)
    monkeypatch.setattr(announcer, "_MOST_WAITING", 6)


@pytest.mark.usefixtures("_small")
async def test_what_gives_way_while_a_call_is_under_way_is_counted_and_nothing_else_is_lost(
    prefect: PrefectApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue runs over between a call and its answer: what is then done with is what was sent."""
    under_way, answer = asyncio.Event(), asyncio.Event()
    sent: list[str] = []

    async def slow(api: PrefectApi, events: list[dict[str, Any]]) -> None:
        under_way.set()
        await answer.wait()
        await emit(api, events)
        sent.extend(event["id"] for event in events)

    monkeypatch.setattr(announcer, "emit", slow)
    one = Announcer(prefect=prefect)
    with structlog.testing.capture_logs() as logs:
        async with _running(one):
            for _ in range(4):
                _announce(one)
            await asyncio.wait_for(under_way.wait(), 20)
            for _ in range(9):  # three more than may wait
                _announce(one)
            assert one.status() == {"published": 0, "waiting": 10, "dropped": 3}
            answer.set()
            await eventually(lambda: _all_published(one))
    assert one.status() == {"published": 10, "waiting": 0, "dropped": 3}
    assert len(set(sent)) == 10
    assert sum(line.get("dropped", 0) for line in logs) == 3


@pytest.mark.usefixtures("_small")
async def test_one_announcement_that_prefect_refuses_costs_one(
    prefect: PrefectApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []

    async def picky(api: PrefectApi, events: list[dict[str, Any]]) -> None:
        if not refused:
            refused.append(events[1]["id"])
        if refused[0] in {event["id"] for event in events}:
            raise Refused("refused", "one of them is no good")
        await emit(api, events)

    monkeypatch.setattr(announcer, "emit", picky)
    one = Announcer(prefect=prefect)
    for _ in range(6):
        _announce(one)
    async with _running(one):
        await eventually(lambda: _all_published(one))
    assert one.status() == {"published": 5, "waiting": 0, "dropped": 1}


@pytest.mark.usefixtures("_small")
async def test_a_dispatcher_that_is_always_busy_drops_nothing_that_could_be_sent(
    prefect: PrefectApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patience ends before the queue is full."""
    failures = 2

    async def flaky(api: PrefectApi, events: list[dict[str, Any]]) -> None:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise TransientError("away for a moment")
        await emit(api, events)

    monkeypatch.setattr(announcer, "emit", flaky)
    one = Announcer(prefect=prefect)
    one.give_way(lambda: True)
    async with _running(one):
        for _ in range(4):
            _announce(one)
        await eventually(lambda: _all_published(one))
    assert one.status() == {"published": 4, "waiting": 0, "dropped": 0}
