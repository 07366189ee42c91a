"""Processes are killed at any moment; the runs are exactly those that the events ask for."""

from __future__ import annotations

import asyncio
import random
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from config.settings import JournalSettings
from events.errors import Backpressure
from events.event import Event
from services.prefect_api.client import PrefectApi
from services.store.connection import AsyncRedis
from services.store.events.journal import Journal
from services.store.lease import Lease
from tests.integration.delivery.world import RULE, World, deployment, made, order, orders, runs_of, set_state
from tests.support.waiting import eventually
from tests.support.warm import ModuleProcess, start_module

TAKEOVER_SECONDS = 10.0
"""What a dead one left is promised to be taken over in this time after its lease, or its idle time, has run out."""


@asynccontextmanager
async def _process(valkey_url: str, name: str, checkout: Path, rule: str = "{}") -> AsyncIterator[ModuleProcess]:
    words = ("tests.integration.delivery.process", valkey_url, name, rule)
    process = start_module(*words, cwd=checkout, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout
    try:
        await asyncio.to_thread(process.stdout.readline)
        yield process
    finally:
        process.kill()
        await process.ended()
        process.stdout.close()


@pytest.mark.slow
async def test_routers_killed_at_random_moments_leave_exactly_one_run_for_each_event(
    world: World, prefect: PrefectApi, valkey_url: str, checkout: Path
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # noqa: T201 - to run it again
    chance = random.Random(seed)
    name = await deployment(prefect)
    events = orders(120)
    for round_ in range(4):
        async with _process(valkey_url, name, checkout) as process:
            await world.publish(*events[round_ * 30 : round_ * 30 + 30])
            await asyncio.sleep(chance.uniform(0.0, 0.8))  # the moment of the kill is what is random here
            process.kill()
            await process.ended()
    async with _process(valkey_url, name, checkout), _process(valkey_url, name, checkout):
        await eventually(lambda: made(prefect, name, 120))
        await eventually(lambda: _empty(world))
        rows = await runs_of(prefect, name)
        assert Counter(run["parameters"]["amount"] for run in rows) == Counter(range(120)), f"seed {seed}"
        for run in rows:
            await set_state(prefect, run["id"], "COMPLETED")
        finished = await eventually(lambda: _finished(world, 120))
    assert Counter(one["identity"] for one in finished) == Counter(event.identity for event in events), f"seed {seed}"


async def test_two_routers_share_the_work_and_repeat_nothing(redis: AsyncRedis, prefect: PrefectApi) -> None:
    settings = JournalSettings(batch=5)
    first = World(redis, prefect, journal_settings=settings, consumer="one")
    second = World(redis, prefect, journal_settings=settings, consumer="two")
    name = await deployment(prefect)
    for world in (first, second):
        world.use({**RULE, "run": name}, {"name": "quiet", "on": "*", "resume": {"key": "x"}})
    async with first.running(), second.running():
        for event in orders(60):
            await first.publish(event)
        await eventually(lambda: made(prefect, name, 60))
        await eventually(lambda: _empty(first))
        rows = await runs_of(prefect, name)
        for run in rows:
            await eventually(lambda run=run: first.runs.get(run["id"]))
            await set_state(prefect, run["id"], "COMPLETED")
        await eventually(lambda: _finished(first, 60))
    assert Counter(run["parameters"]["amount"] for run in rows) == Counter(range(60))
    assert first.router.status()["routed"] + second.router.status()["routed"] == 60
    assert min(first.router.status()["routed"], second.router.status()["routed"]) > 0
    assert len(first.signals) + len(second.signals) == 60
    assert [first.dispatcher.status()["created"], second.dispatcher.status()["created"]].count(0) == 1


async def test_what_a_dead_reader_had_in_hand_is_claimed(redis: AsyncRedis, prefect: PrefectApi) -> None:
    name = await deployment(prefect)
    settings = JournalSettings(claim_idle_seconds=0.5)
    dead = Journal(redis, settings, consumer="dead")
    world = World(redis, prefect, journal_settings=settings)
    world.use({**RULE, "run": name})
    await world.publish(*orders(10))
    assert len(await dead.read(count=10)) == 10
    async with world.running("router", "dispatcher"):
        await eventually(lambda: _claimed(world, 10), within_seconds=0.5 + TAKEOVER_SECONDS)
        await eventually(lambda: made(prefect, name, 10))


async def test_a_dispatcher_that_ends_hands_over_without_the_end_of_its_lease(
    redis: AsyncRedis, prefect: PrefectApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = await deployment(prefect)
    first, second = World(redis, prefect, consumer="one"), World(redis, prefect, consumer="two")
    for world in (first, second):
        monkeypatch.setattr(world.dispatcher, "_lease", Lease(redis, "dispatch", ttl_seconds=3600))
        world.use({**RULE, "run": name})
    async with second.running("router"):
        async with first.running("dispatcher"):
            await second.publish(order(1))
            await eventually(lambda: made(prefect, name, 1))
        async with second.running("dispatcher"):
            await second.publish(order(2))
            await eventually(lambda: made(prefect, name, 2))


async def test_a_dead_dispatchers_lease_runs_out_and_another_takes_over_within_ten_seconds(
    redis: AsyncRedis, prefect: PrefectApi
) -> None:
    name = await deployment(prefect)
    dead = Lease(redis, "dispatch", ttl_seconds=2)
    alive = World(redis, prefect)
    alive.use({**RULE, "run": name})
    await alive.publish(order(1))
    assert await dead.acquire()  # and never a word again
    async with alive.running("router", "dispatcher"):
        await eventually(lambda: _leads(alive), within_seconds=2 + TAKEOVER_SECONDS)
        await eventually(lambda: made(prefect, name, 1))
    assert not await dead.renew()


async def test_a_dispatcher_does_not_begin_while_anothers_lease_runs(redis: AsyncRedis, prefect: PrefectApi) -> None:
    world = World(redis, prefect)
    world.use({**RULE, "run": await deployment(prefect)})
    await world.publish(order(1))
    other = Lease(redis, "dispatch", ttl_seconds=60)
    assert await other.acquire()
    async with world.running("router", "dispatcher"):
        await eventually(lambda: _routed(world))
        await asyncio.sleep(2.5)  # nothing is to happen: it has asked for the lease twice meanwhile
        assert not world.dispatcher.status()["active"]
        await other.release()
        await eventually(lambda: _empty(world))


async def _deliver(redis: AsyncRedis, times: int) -> JournalSettings:
    """Have the only entry read so often, by readers that end with it in hand."""
    settings = JournalSettings(claim_idle_seconds=0.01)
    await Journal(redis, settings, consumer="r0").read(count=1)
    for number in range(1, times):
        reader = Journal(redis, settings, consumer=f"r{number}")
        await eventually(reader.claim)
    return settings


async def test_an_event_that_ends_its_readers_becomes_a_dead_letter(world: World) -> None:
    world.use({**RULE, "run": "no/matter"})
    await world.publish(order(1, id_="poison"))
    settings = await _deliver(world.redis, 3)

    async def poison_check(event: Event) -> str | None:
        return f"{event.id} ends whoever judges it"

    poisoned = World(world.redis, world.prefect, journal_settings=settings, poison_check=poison_check)
    poisoned.use({**RULE, "run": "no/matter"})
    async with poisoned.running("router"):
        (finished,) = await eventually(world.finished)
    (dead,) = finished["dead"]
    assert dead["code"] == "ended-routers"
    assert dead["reason"].startswith("4 routers ended while they had this event in hand, and poison ends")


async def test_an_event_in_hand_of_readers_that_ended_by_chance_gets_its_run(world: World, prefect: PrefectApi) -> None:
    name = await deployment(prefect)
    await world.publish(order(1))
    settings = await _deliver(world.redis, 9)

    async def poison_check(event: Event) -> str | None:
        return None

    innocent = World(world.redis, prefect, journal_settings=settings, poison_check=poison_check)
    innocent.use({**RULE, "run": name})
    async with innocent.running("router", "dispatcher"):
        await eventually(lambda: made(prefect, name, 1))
    assert await world.dead.count() == 0


async def test_twenty_readers_do_not_end_by_chance(world: World) -> None:
    await world.publish(order(1))
    settings = await _deliver(world.redis, 19)

    async def poison_check(event: Event) -> str | None:
        return None

    async with World(world.redis, world.prefect, journal_settings=settings, poison_check=poison_check).running(
        "router"
    ):
        (finished,) = await eventually(world.finished)
    assert finished["dead"][0]["code"] == "ended-routers"


async def test_a_full_redis_refuses_new_events_and_lets_what_is_there_through(
    world: World, prefect: PrefectApi, redis: AsyncRedis
) -> None:
    name = await deployment(prefect)
    world.use({**RULE, "run": name})
    async with world.running("router", "dispatcher"):
        await world.publish(order(0))
        await eventually(lambda: _empty(world))
    await world.publish(*orders(19))
    used = int((await redis.info("memory"))["used_memory"])
    await redis.config_set("maxmemory", used - 1)
    try:
        with pytest.raises(Backpressure):
            await world.publish(order(99))
        async with world.running("router", "dispatcher"):
            await eventually(lambda: made(prefect, name, 20))
            await eventually(lambda: _empty(world))
    finally:
        await redis.config_set("maxmemory", 0)
    await world.publish(order(100))


async def _empty(world: World) -> bool:
    depth = await world.journal.depth()
    return not await world.queues.names() and depth.pending == 0 and depth.unread == 0


async def _leads(world: World) -> bool:
    return bool(world.dispatcher.status()["active"])


async def _claimed(world: World, count: int) -> bool:
    return bool(world.router.status()["claimed"] == count)


async def _routed(world: World) -> bool:
    return bool(await world.queues.names())


async def _finished(world: World, count: int) -> list[dict[str, object]] | None:
    finished = await world.finished()
    return finished if len(finished) >= count else None
