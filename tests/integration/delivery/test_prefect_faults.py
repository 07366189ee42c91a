"""Prefect refuses, cuts and delays connections; in the end there is one run for each event, in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest_asyncio
from prefect.client.orchestration import PrefectClient

from services.prefect_api.client import PrefectApi
from services.store.connection import AsyncRedis
from tests.integration.delivery.world import RULE, World, deployment, order, orders, runs_of
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


async def test_while_prefect_is_away_events_wait_and_go_on_when_it_is_back(
    far: World, proxy: Proxy, prefect: PrefectApi
) -> None:
    name = await deployment(prefect)
    far.use({**RULE, "run": name})
    async with far.running("router", "dispatcher"):
        await far.publish(order(0))
        await eventually(lambda: _count(prefect, name, 1))
        proxy.refusing = True
        proxy.cut()
        await far.publish(*orders(10)[1:])
        await eventually(lambda: _degraded(far))
        assert "out of reach" in far.dispatcher.status()["degraded"]
        assert await far.dead.count() == 0
        proxy.refusing = False
        await eventually(lambda: _count(prefect, name, 10))
        await eventually(lambda: _well(far))
    assert [run["parameters"]["amount"] for run in await runs_of(prefect, name)] == list(range(10))
    assert await far.dead.count() == 0


async def test_answers_that_get_lost_make_no_second_run(far: World, proxy: Proxy, prefect: PrefectApi) -> None:
    name = await deployment(prefect)
    far.use({**RULE, "run": name})
    async with far.running("router", "dispatcher"):
        await far.publish(*orders(60))
        for _ in range(8):
            await asyncio.sleep(0.1)
            proxy.cut()
        await eventually(lambda: _count(prefect, name, 60), within_seconds=30)
        await eventually(lambda: _drained(far), within_seconds=30)
    assert sorted(run["parameters"]["amount"] for run in await runs_of(prefect, name)) == list(range(60))


async def test_a_slow_prefect_only_takes_longer(far: World, proxy: Proxy, prefect: PrefectApi) -> None:
    name = await deployment(prefect)
    far.use({**RULE, "run": name})
    proxy.delay_seconds = 0.3
    async with far.running("router", "dispatcher"):
        await far.publish(*orders(5))
        await eventually(lambda: _count(prefect, name, 5))
        await eventually(lambda: _drained(far))
    assert "degraded" not in far.dispatcher.status()


async def _count(prefect: PrefectApi, name: str, count: int) -> bool:
    return len(await runs_of(prefect, name)) >= count


async def _degraded(world: World) -> bool:
    return "degraded" in world.dispatcher.status()


async def _well(world: World) -> bool:
    return "degraded" not in world.dispatcher.status()


async def _drained(world: World) -> bool:
    return not await world.lanes.names()
