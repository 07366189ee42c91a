"""Prefect refuses, cuts and delays connections; in the end there is one run for each event, in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from prefect.client.orchestration import PrefectClient

from config.runs import DispatcherSettings
from events.errors import TransientError
from services.dispatch import run_creator
from services.prefect_api.client import PrefectApi
from services.prefect_api.deployments import Deployment
from services.prefect_api.dispatch import CreationResult, Result, create_runs, healthy
from services.store.connection import AsyncRedis
from services.store.event_transitions import EventTransitions, Made
from tests.integration.delivery.world import RULE, World, deployment, made, order, orders, runs_of
from tests.support.proxy import Proxy
from tests.support.waiting import eventually


@pytest_asyncio.fixture
async def proxy(prefect_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(urlsplit(prefect_url).port or 0) as proxy:
        yield proxy


@pytest_asyncio.fixture
async def far(redis: AsyncRedis, proxy: Proxy) -> AsyncIterator[World]:
    """A world whose Prefect lies behind the proxy."""
    async with PrefectClient(f"http://127.0.0.1:{proxy.port}/api") as client:
        yield World(redis, PrefectApi(client))


@asynccontextmanager
async def _creating(far: World, prefect: PrefectApi) -> AsyncIterator[str]:
    """A router and a dispatcher that have created a first run of the deployment."""
    name = await deployment(prefect)
    far.use({**RULE, "run": name})
    async with far.running("router", "dispatcher"):
        await far.publish(order(0))
        await eventually(lambda: made(prefect, name, 1))
        yield name


async def test_while_prefect_is_away_events_wait_and_go_on_when_it_is_back(
    far: World, proxy: Proxy, prefect: PrefectApi
) -> None:
    async with _creating(far, prefect) as name:
        proxy.refusing = True
        proxy.cut()
        await far.publish(*orders(10)[1:])
        await eventually(lambda: _degraded(far))
        assert "out of reach" in far.dispatcher.status()["degraded"]
        assert await far.dead.count() == 0
        proxy.refusing = False
        await eventually(lambda: made(prefect, name, 10))
        await eventually(lambda: _well(far))
    assert [run["parameters"]["amount"] for run in await runs_of(prefect, name)] == list(range(10))
    assert await far.dead.count() == 0


async def test_answers_that_get_lost_make_no_second_run(far: World, proxy: Proxy, prefect: PrefectApi) -> None:
    name = await deployment(prefect)
    far.use({**RULE, "run": name})
    async with far.running("router", "dispatcher"):
        await far.publish(*orders(60))
        for _ in range(8):
            await asyncio.sleep(0.1)  # calls are under way at each cut, whichever they are
            proxy.cut()
        await eventually(lambda: made(prefect, name, 60))
        await eventually(lambda: _drained(far))
    assert sorted(run["parameters"]["amount"] for run in await runs_of(prefect, name)) == list(range(60))


async def test_a_slow_prefect_only_takes_longer(far: World, proxy: Proxy, prefect: PrefectApi) -> None:
    name = await deployment(prefect)
    far.use({**RULE, "run": name})
    proxy.delay_seconds = 0.3
    async with far.running("router", "dispatcher"):
        await far.publish(*orders(5))
        await eventually(lambda: made(prefect, name, 5))
        await eventually(lambda: _drained(far))
    assert "degraded" not in far.dispatcher.status()


async def test_a_question_for_its_health_that_prefect_never_answers_is_given_up(
    far: World, proxy: Proxy, prefect: PrefectApi
) -> None:
    """As after PostgreSQL has restarted: Prefect answers 500 and forgets the connection with what comes next on it."""
    async with _creating(far, prefect) as name:
        await eventually(lambda: _drained(far))
        proxy.instead.append((b"POST /api/deployments/", b"HTTP/1.1 500 Gone\r\ncontent-length: 0\r\n\r\n"))
        proxy.swallow()
        await far.publish(order(1))
        # Prefect's client gives up after 60 s.
        await eventually(lambda: _asked_again(proxy), within_seconds=40, what="a second question")
        proxy.flow()
        await eventually(lambda: made(prefect, name, 2))


async def test_a_dispatcher_that_is_told_to_end_in_the_middle_of_a_call_ends_and_the_next_repeats_nothing(
    far: World, proxy: Proxy, prefect: PrefectApi, redis: AsyncRedis
) -> None:
    async with _creating(far, prefect) as name:
        await eventually(lambda: _drained(far))
        proxy.swallow()
        await far.publish(*orders(10)[1:])
        await eventually(lambda: _busy(far))
        ending = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - ending < 8  # what a role has before it is killed
    proxy.flow()  # what was under way may arrive after all, and nobody hears the answer
    heir = World(redis, prefect, consumer="heir")
    heir.use({**RULE, "run": name})
    async with heir.running("router", "dispatcher"):
        await eventually(lambda: _drained(heir))
    assert sorted(run["parameters"]["amount"] for run in await runs_of(prefect, name)) == list(range(10))


async def test_an_answer_that_nobody_foresaw_is_not_asked_for_in_a_tight_circle(
    world: World, prefect: PrefectApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = await deployment(prefect)
    world.use({**RULE, "run": name})
    asked = 0
    honest = create_runs

    async def strange(*arguments: Any) -> Any:
        nonlocal asked
        asked += 1
        if asked <= 3:
            raise ValueError("a proxy answered with a page")
        return await honest(*arguments)

    monkeypatch.setattr(run_creator, "create_runs", strange)
    async with world.running("router", "dispatcher"):
        await world.publish(order(1))
        await eventually(lambda: made(prefect, name, 1))
    assert asked == 4


async def test_what_met_a_lock_is_repeated_long_before_the_first_back_off_is_over_and_keeps_its_place(
    redis: AsyncRedis, prefect: PrefectApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = await deployment(prefect)
    world = World(redis, prefect, dispatcher_settings=DispatcherSettings(backoff_seconds=60, max_backoff_seconds=60))
    world.use({**RULE, "run": name})
    await world.publish(*orders(5))
    honest = create_runs
    locked: list[int] = []

    async def busy_once(api: PrefectApi, deployment: Deployment, bodies: Sequence[Any]) -> list[Result]:
        if not locked:
            locked.append(len(bodies))
            return [Result(CreationResult.RETRY, said="database is locked") for _ in bodies]
        return await honest(api, deployment, bodies)

    monkeypatch.setattr(run_creator, "create_runs", busy_once)
    async with world.running("router", "dispatcher"):
        await eventually(lambda: made(prefect, name, 5), within_seconds=25)  # the back-off itself is 30 s or more
    assert locked
    assert [run["parameters"]["amount"] for run in await runs_of(prefect, name)] == list(range(5))


async def test_runs_that_could_not_be_recorded_for_a_reason_nobody_foresaw_are_recorded_in_the_end(
    world: World, prefect: PrefectApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = await deployment(prefect)
    world.use({**RULE, "run": name})
    honest = EventTransitions.created
    failed = asyncio.Event()

    async def strange(self: EventTransitions, made: Sequence[Made]) -> list[bool]:
        if made and not failed.is_set():
            failed.set()
            raise ValueError("an answer that nobody foresaw")
        return await honest(self, made)

    monkeypatch.setattr(EventTransitions, "created", strange)
    async with world.running("router", "dispatcher"):
        await world.publish(*orders(5))
        await eventually(lambda: _drained(world))
    assert failed.is_set()
    assert [run["parameters"]["amount"] for run in await runs_of(prefect, name)] == list(range(5))


async def test_a_fault_in_the_question_for_prefects_health_does_not_stop_dispatch_for_good(
    world: World, prefect: PrefectApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = await deployment(prefect)
    world.use({**RULE, "run": name})
    honest = create_runs, healthy
    faults = ["calls", "first question", "second question"]

    async def cut(*arguments: Any) -> Any:
        if faults[0] == "calls":
            faults.pop(0)
            raise TransientError("cut")
        return await honest[0](*arguments)

    async def strange(*arguments: Any) -> bool:
        if len(faults) > 2:
            return await honest[1](*arguments)
        if len(faults) == 1:
            monkeypatch.setattr(run_creator, "create_runs", honest[0])
            monkeypatch.setattr(run_creator, "healthy", honest[1])
            raise ValueError("a proxy answered with a page")
        faults.pop(0)
        return False

    monkeypatch.setattr(run_creator, "create_runs", cut)
    monkeypatch.setattr(run_creator, "healthy", strange)
    async with world.running("router", "dispatcher"):
        await world.publish(order(1))
        await eventually(lambda: _drained(world))
    assert len(await runs_of(prefect, name)) == 1


async def _asked_again(proxy: Proxy) -> bool:
    return sum(piece.startswith(b"GET /api/health") for piece in proxy.heard) > 1


async def _busy(world: World) -> bool:
    return world.dispatcher._calls.under_way.total() > 0


async def _degraded(world: World) -> bool:
    return "degraded" in world.dispatcher.status()


async def _well(world: World) -> bool:
    return "degraded" not in world.dispatcher.status()


async def _drained(world: World) -> bool:
    depth = await world.journal.depth()
    return not await world.queues.names() and depth.unread == 0 and depth.pending == 0
