"""Nothing stays in its queue for ever: whatever a dispatcher met or missed, what waits is found and done."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from events.errors import TransientError
from services.dispatch import dispatcher, run_creator
from services.prefect_api.client import PrefectApi
from services.prefect_api.dispatch import create_runs, healthy
from services.store.connection import AsyncRedis
from services.store.event_transitions import EventTransitions, Made
from services.store.keys import DISPATCH_QUEUE, DISPATCH_QUEUES
from services.store.lease import Lease
from tests.integration.delivery.world import RULE, World, deployment, order, orders, runs_of
from tests.support.waiting import PATIENCE_SECONDS, eventually


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
