"""One event that cannot be done costs that event, not those that a window gathered with it."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from config.runs import DispatcherSettings
from events.identity import identity_of
from services.prefect_api.client import PrefectApi
from services.store.connection import AsyncRedis
from services.store.dead_letters import LetterQuery
from services.store.runs.dispatch_queues import Dispatch
from tests.integration.delivery.test_crashes import _empty, _process
from tests.integration.delivery.world import World, deployment, order, runs_of
from tests.support.waiting import eventually

SCHEMA = {
    "type": "object",
    "properties": {"amounts": {"type": "array", "items": {"type": "integer"}}},
    "required": ["amounts"],
}
GATHER: dict[str, Any] = {
    "name": "pay",
    "on": "order.*",
    "batch": {"max_events": 20, "max_wait_seconds": 30},
    "parameters": {"amounts": "{{ events | map(attribute='data.amount') }}"},
}


async def _letters(world: World) -> Counter[str]:
    found = await world.dead.search(LetterQuery(), limit=200)
    return Counter(f"{letter.event_id} {letter.code}" for letter in found)


async def _amounts(prefect: PrefectApi, name: str) -> Counter[Any]:
    return Counter(amount for run in await runs_of(prefect, name) for amount in run["parameters"]["amounts"])


async def test_a_value_that_prefect_refuses(world: World, prefect: PrefectApi) -> None:
    name = await deployment(prefect, schema=SCHEMA)
    world.use({**GATHER, "run": name})
    async with world.running():
        await world.publish(*(order("text" if n == 13 else n, id_=f"e{n}") for n in range(20)))
        await eventually(lambda: _letters(world))
        await eventually(lambda: _empty(world))
    assert await _letters(world) == {"e13 parameters-refused": 1}
    assert await _amounts(prefect, name) == {n: 1 for n in range(20) if n != 13}
    told = await world.history.get(identity_of("shop", "e12"))
    assert told is not None
    assert any("refused together with" in note.text for note in told.notes)


async def test_several_values_that_prefect_refuses_do_not_make_the_rule_hold_its_events(
    world: World, prefect: PrefectApi
) -> None:
    name = await deployment(prefect, schema=SCHEMA)
    world.use({**GATHER, "run": name, "batch": {"max_events": 100, "max_wait_seconds": 30}})
    bad = {0, 31, 32, 66, 99}
    async with world.running():
        await world.publish(*(order("text" if n in bad else n, id_=f"e{n}") for n in range(100)))
        await eventually(lambda: _settled(world, bad))
        assert world.dispatcher.status()["held"] == []
    assert await _amounts(prefect, name) == {n: 1 for n in range(100) if n not in bad}


async def test_an_event_that_is_too_large(world: World, prefect: PrefectApi) -> None:
    name = await deployment(prefect, schema={"type": "object", "properties": {"amounts": {}}})
    world.use({**GATHER, "run": name})
    async with world.running():
        await world.publish(*(order("x" * 600_000 if n == 7 else n, id_=f"e{n}") for n in range(20)))
        await eventually(lambda: _settled(world, {7}))
    assert await _letters(world) == {"e7 parameters-too-large": 1}
    assert await _amounts(prefect, name) == {n: 1 for n in range(20) if n != 7}


async def test_events_that_are_too_large_only_together_are_all_done(redis: AsyncRedis, prefect: PrefectApi) -> None:
    world = World(redis, prefect, dispatcher_settings=DispatcherSettings(max_parameter_bytes=16 * 1024))
    name = await deployment(prefect, schema={"type": "object", "properties": {"amounts": {}}})
    world.use({**GATHER, "run": name})
    async with world.running():
        await world.publish(*(order(f"{n:04}" + "x" * 4000, id_=f"e{n}") for n in range(20)))
        await eventually(lambda: _settled(world, set()))
    assert {amount[:4] for amount in await _amounts(prefect, name)} == {f"{n:04}" for n in range(20)}
    assert set((await _amounts(prefect, name)).values()) == {1}


async def test_a_run_that_was_created_and_not_recorded_is_not_divided(world: World, prefect: PrefectApi) -> None:
    """The process ended after Prefect had created the run; then the deployment began to refuse such parameters."""
    name = await deployment(prefect, schema={"type": "object", "properties": {"amounts": {}}})
    world.use({**GATHER, "run": name})
    await world.publish(*(order(n, id_=f"e{n}") for n in range(20)))
    async with world.running("router", "windows"):
        await eventually(world.queues.names)
    (waiting,) = (await world.queues.read(dict.fromkeys(await world.queues.names(), ("", 10)))).values()
    action = waiting[0].dispatch.action
    found = await prefect.request("GET", f"/deployments/name/{name}")
    body = {"parameters": action.parameters, "idempotency_key": action.idempotency_key}
    run = await prefect.request("POST", f"/deployments/{found['id']}/create_flow_run", json=body)
    refusing = DispatcherSettings(max_parameter_bytes=1024)
    again = World(world.redis, prefect, dispatcher_settings=refusing, consumer="two")
    again.use({**GATHER, "run": name, "parameters": {"amounts": "{{ events | map(attribute='data.amount') }}"}})
    padded = waiting[0].dispatch.action.model_copy(update={"parameters": {"amounts": ["x" * 2000]}})
    await world.redis.delete(*[f"sluice:dispatch-queue:{queue}" for queue in await world.queues.names()])
    instead = Dispatch(padded, "shop", "order.placed", waiting[0].dispatch.positions)
    await world.redis.xadd(f"sluice:dispatch-queue:{instead.queue}", {"d": instead.to_json()})
    async with again.running("dispatcher"):
        await eventually(lambda: _empty(again))
    assert [one["id"] for one in await runs_of(prefect, name)] == [run["id"]]
    assert await _letters(again) == {}
    assert await again.runs.get(run["id"]) is not None


@pytest.mark.slow
async def test_processes_that_are_killed_while_they_divide_lose_and_double_nothing(
    world: World, prefect: PrefectApi, valkey_url: str, checkout: Path
) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")  # noqa: T201 - to run it again
    chance = random.Random(seed)
    name = await deployment(prefect, schema=SCHEMA)
    rule = json.dumps(GATHER)
    bad = {5, 23, 24, 47, 78}
    for round_ in range(4):
        async with _process(valkey_url, name, checkout, rule) as process:
            numbers = range(round_ * 20, round_ * 20 + 20)
            await world.publish(*(order("text" if n in bad else n, id_=f"e{n}") for n in numbers))
            await asyncio.sleep(chance.uniform(0.1, 1.0))  # the moment of the kill is what is random here
            process.kill()
            await process.ended()
    async with _process(valkey_url, name, checkout, rule):
        await eventually(lambda: _settled(world, bad), within_seconds=60)
    assert await _letters(world) == {f"e{n} parameters-refused": 1 for n in bad}, f"seed {seed}"
    assert await _amounts(prefect, name) == {n: 1 for n in range(80) if n not in bad}, f"seed {seed}"


async def _settled(world: World, bad: set[int]) -> bool:
    counts = await world.windows._store.counts()
    return (
        counts.open == counts.closed == 0
        and await _empty(world)
        and {one.partition(" ")[0] for one in await _letters(world)} == {f"e{n}" for n in bad}
    )
