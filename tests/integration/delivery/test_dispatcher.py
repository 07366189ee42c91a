"""The dispatcher: order, limits and priorities of the runs, and that none stays in its queue whatever it met."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from itertools import pairwise

import pytest

from config.runs import DispatcherSettings
from services.dispatch import dispatcher
from services.prefect_api.client import PrefectApi
from services.store.connection import AsyncRedis
from services.store.keys import DISPATCH_QUEUE, DISPATCH_QUEUES
from services.store.lease import Lease
from tests.integration.delivery.world import RULE, World, deployment, made, order, orders, runs_of, set_state
from tests.support.waiting import PATIENCE_SECONDS, eventually


async def test_a_limit_on_active_runs_holds_the_rest_in_order_and_nobody_else(
    world: World, prefect: PrefectApi
) -> None:
    name, free = await deployment(prefect), await deployment(prefect)
    world.use({**RULE, "run": name, "max_active_runs": 2}, {**RULE, "name": "other", "run": free})
    async with world.running():
        await world.publish(*orders(5))
        await eventually(lambda: made(prefect, free, 5))
        first, second = await eventually(lambda: runs_of(prefect, name))
        await eventually(lambda: world.runs.get(second["id"]))
        assert len(await runs_of(prefect, name)) == 2
        await set_state(prefect, second["id"], "COMPLETED")
        await eventually(lambda: made(prefect, name, 3))
        await set_state(prefect, first["id"], "FAILED")
        await eventually(lambda: made(prefect, name, 4))
        assert len(await runs_of(prefect, name)) == 4
    assert [run["parameters"]["amount"] for run in await runs_of(prefect, name)] == [0, 1, 2, 3]


async def test_a_global_limit_on_active_runs_counts_all_rules(redis: AsyncRedis, prefect: PrefectApi) -> None:
    world = World(redis, prefect, dispatcher_settings=DispatcherSettings(max_active_runs=3))
    first, second = await deployment(prefect), await deployment(prefect)
    world.use({**RULE, "run": first}, {**RULE, "name": "other", "run": second, "priority": 1})
    async with world.running("router"):
        await world.publish(*orders(3))
        await eventually(lambda: _queues_hold(world, 6))
    async with world.running("dispatcher", "outcomes"):
        await eventually(lambda: made(prefect, second, 3))
        await asyncio.sleep(1.5)  # the dispatcher looks again after a second at the latest
        assert await runs_of(prefect, first) == []
        for run in await runs_of(prefect, second):
            await eventually(lambda run=run: world.runs.get(run["id"]))
            await set_state(prefect, run["id"], "COMPLETED")
        await eventually(lambda: made(prefect, first, 3))


async def test_a_rate_lets_no_more_through_in_any_stretch_of_its_time(world: World, prefect: PrefectApi) -> None:
    name = await deployment(prefect)
    world.use({**RULE, "run": name, "rate": "3/2 seconds"})
    began = time.time()
    async with world.running("router", "dispatcher"):
        await world.publish(*orders(8))
        await eventually(lambda: made(prefect, name, 8))
    rows = await runs_of(prefect, name)
    assert [run["parameters"]["amount"] for run in rows] == list(range(8))
    last = datetime.fromisoformat(rows[-1]["created"]).timestamp()
    assert last - began > 4  # the seventh and eighth belong to the third stretch of two seconds


async def test_higher_priority_goes_first(redis: AsyncRedis, prefect: PrefectApi) -> None:
    world = World(redis, prefect, dispatcher_settings=DispatcherSettings(batch=4, calls=1))
    name = await deployment(prefect)
    world.use(
        {**RULE, "run": name, "on": "order.low"},
        {**RULE, "run": name, "name": "urgent", "on": "order.high", "priority": 5},
    )
    events = [order(n, type_="order.low" if n < 6 else "order.high") for n in range(12)]
    async with world.running("router"):
        await world.publish(*events)
        await eventually(lambda: _queues_hold(world, 12))
    async with world.running("dispatcher"):
        await eventually(lambda: made(prefect, name, 12))
    amounts = [run["parameters"]["amount"] for run in await runs_of(prefect, name)]
    assert amounts == [*range(6, 12), *range(6)]


async def test_times_of_creation_grow_with_the_order_of_events(world: World, prefect: PrefectApi) -> None:
    name = await deployment(prefect)
    world.use({**RULE, "run": name})
    async with world.running("router", "dispatcher"):
        for event in orders(20):
            await world.publish(event)
        await eventually(lambda: made(prefect, name, 20))
    rows = await runs_of(prefect, name)
    assert all(a["parameters"]["amount"] < b["parameters"]["amount"] for a, b in pairwise(rows))


async def test_what_a_server_without_its_last_second_shows_again_behind_what_was_read_is_found(
    world: World, prefect: PrefectApi, redis: AsyncRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "_RECOUNT_SECONDS", 0.2)
    world.use({**RULE, "run": "late-flow-3/default"})
    async with world.running("router", "dispatcher"):
        await world.publish(*orders(3))
        await eventually(lambda: _holds(world, 3), what="all three runs to be held")
        (queue,) = await world.queues.names()
        entries = await redis.xrange(DISPATCH_QUEUE + queue)
        async with redis.pipeline(transaction=True) as moved:  # the same entries, as a clock set back would name them
            moved.delete(DISPATCH_QUEUE + queue)
            for number, (_, fields) in enumerate(entries, 1):
                moved.xadd(DISPATCH_QUEUE + queue, fields, id=f"{number}-1")
            moved.sadd(DISPATCH_QUEUES, queue)
            await moved.execute()
        late = await deployment(prefect, name="late-flow-3")
        await eventually(lambda: _drained(world))
    assert [run["parameters"]["amount"] for run in await runs_of(prefect, late)] == list(range(3))


class _Deaf(Lease):
    """Swallows a cancellation in the middle of a renewal, as Python 3.11's ``asyncio.wait_for`` may."""

    swallowed = False

    async def renew(self) -> bool:
        try:
            await asyncio.sleep(0.3)  # what a slow renewal takes
        except asyncio.CancelledError:
            self.swallowed = True
        return await super().renew()


async def test_a_dispatcher_that_has_ended_does_not_go_on_holding_the_lease(
    redis: AsyncRedis, prefect: PrefectApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "LEASE_SECONDS", 0.8)
    name = await deployment(prefect)
    first, second = World(redis, prefect, consumer="one"), World(redis, prefect, consumer="two")
    lease = _Deaf(redis, "dispatch", ttl_seconds=0.8)
    monkeypatch.setattr(first.dispatcher, "_lease", lease)
    for world in (first, second):
        world.use({**RULE, "run": name})
    task = asyncio.create_task(first.dispatcher.run())
    try:
        while not lease.swallowed:  # told to end in the middle of a renewal
            await eventually(lambda: _leads(first))
            await asyncio.sleep(0.3)
            task.cancel()
            await asyncio.wait({task}, timeout=PATIENCE_SECONDS)
            assert task.done()
            if not lease.swallowed:
                task = asyncio.create_task(first.dispatcher.run())
        async with second.running("router", "dispatcher"):
            await second.publish(order(1))
            await eventually(lambda: _drained(second))
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=5)


async def _leads(world: World) -> bool:
    return bool(world.dispatcher.status()["active"])


async def _holds(world: World, count: int) -> bool:
    return [queue["waiting"] for queue in world.dispatcher.status()["held"]] == [count]


async def _drained(world: World) -> bool:
    depth = await world.journal.depth()
    return not await world.queues.names() and depth.unread == 0 and depth.pending == 0


async def _queues_hold(world: World, count: int) -> bool:
    return sum((await world.queues.lengths(await world.queues.names())).values()) == count
