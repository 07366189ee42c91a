"""What is told to Prefect's event feed waits while Prefect has runs to create, and not for ever."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from events.action import RunDeployment
from services import announcer
from services.announcer import Announcer
from services.prefect_api.client import PrefectApi
from services.store.lanes import dispatch_of
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

    one = Announcer(prefect=prefect, busy=busy)
    async with _running(one):
        _announce(one)
        await eventually(lambda: _published(one))
    assert looks == 20


async def test_announcements_do_not_wait_for_ever(prefect: PrefectApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcer, "_PATIENCE_SECONDS", 0.2)
    one = Announcer(prefect=prefect, busy=lambda: True)
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

    one = Announcer(prefect=prefect, busy=busy)
    for _ in range(7):
        _announce(one)
    async with _running(one):
        await eventually(lambda: _all_published(one))
    assert one.status()["published"] == 7
    assert asked_in_between == 0


async def _all_published(one: Announcer) -> bool:
    return one.status()["waiting"] == 0
