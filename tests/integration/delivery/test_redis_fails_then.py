"""What is to be done is forgotten only when it is done: Redis fails at the very moment in between."""

from __future__ import annotations

import pytest

from config.runs import DispatcherSettings
from services.prefect_api.client import PrefectApi
from services.store.connection import AsyncRedis
from services.store.dead_letters import DeadLetters, LetterQuery
from services.store.rules.parked_events import ParkedEvents
from tests.integration.delivery.world import RULE, World, deployment, made, order, orders
from tests.support.failing_once import fails_once
from tests.support.waiting import eventually


async def test_parked_events_are_judged_again_though_it_failed_the_first_time(
    redis: AsyncRedis, prefect: PrefectApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    mended: list[int] = []
    failed = fails_once(monkeypatch, ParkedEvents, "unpark", when=lambda: bool(mended))
    world = World(redis, prefect)
    name = await deployment(prefect)
    world.use({**RULE, "run": name, "parameters": {"amount": "{{ event.data.amuont }}"}})
    async with world.running("router", "dispatcher"):
        await world.publish(*orders(30))
        await eventually(lambda: _parked(world, 20))
        mended.append(1)
        world.use({**RULE, "run": name})
        await world.publish(order(100))
        await eventually(lambda: made(prefect, name, 21))
        await eventually(lambda: _parked(world, 0))
    assert failed


async def test_the_letter_about_a_missing_deployment_is_written_though_it_failed_the_first_time(
    redis: AsyncRedis, prefect: PrefectApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = fails_once(monkeypatch, DeadLetters, "add")
    world = World(redis, prefect, dispatcher_settings=DispatcherSettings(longest_probe_seconds=0.3))
    world.use({**RULE, "run": "no-such-flow/default"})
    async with world.running("router", "dispatcher"):
        await world.publish(order(1))
        (letter,) = await eventually(lambda: world.dead.search(LetterQuery(), limit=5))
    assert letter.code == "deployment-missing"
    assert failed


async def _parked(world: World, count: int) -> bool:
    return sum(world.router.status()["parked"].values()) == count
