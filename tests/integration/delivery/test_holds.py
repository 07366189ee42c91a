"""What has to wait waits in its own queue, durably and in order, and holds up nobody else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from config.runs import DispatcherSettings
from events.dead_letter import DeadLetter
from events.identity import identity_of
from services.prefect_api.client import PrefectApi
from services.store.connection import AsyncRedis
from services.store.dead_letters import DeadLetters, LetterQuery
from tests.integration.delivery.world import RULE, SCHEMA, World, deployment, made, order, orders, runs_of, set_state
from tests.support.waiting import eventually


async def test_a_rule_whose_deployment_is_missing_holds_its_events_and_goes_on_by_itself(
    world: World, prefect: PrefectApi
) -> None:
    there = await deployment(prefect)
    world.use({**RULE, "run": "late-flow-1/default"}, {**RULE, "name": "other", "run": there})
    async with world.running("router", "dispatcher"):
        await world.publish(*orders(5))
        await eventually(lambda: made(prefect, there, 5))
        (held,) = await eventually(lambda: _held(world))
        assert (held["rule"], held["cause"], held["waiting"]) == ("pay", "deployment-missing", 5)
        assert "does not exist" in world.dispatcher.status()["degraded"]
        (notice,) = await eventually(lambda: world.dead.search(LetterQuery(), limit=5))
        assert (notice.code, notice.rule) == ("deployment-missing", "pay")
        assert "go on by themselves" in notice.reason
        late = await deployment(prefect, name="late-flow-1")
        await eventually(lambda: made(prefect, late, 5))
        await eventually(lambda: _not_held(world))
        await eventually(lambda: _drained(world))
    assert [run["parameters"]["amount"] for run in await runs_of(prefect, late)] == list(range(5))
    assert await world.dead.count() == 0


async def test_held_events_survive_the_end_of_the_process(redis: AsyncRedis, prefect: PrefectApi) -> None:
    before = World(redis, prefect)
    before.use({**RULE, "run": "late-flow-2/default"})
    async with before.running("router", "dispatcher"):
        await before.publish(*orders(3))
        await eventually(lambda: _held(before))
    late = await deployment(prefect, name="late-flow-2")
    after = World(redis, prefect, consumer="router-2")
    async with after.running("router", "dispatcher"):
        await eventually(lambda: made(prefect, late, 3))


async def test_a_refused_event_becomes_a_letter_and_its_neighbours_run(world: World, prefect: PrefectApi) -> None:
    name = await deployment(prefect)
    world.use({**RULE, "run": name})
    events = [order(n if n != 2 else "two", id_=f"e{n}") for n in range(5)]
    async with world.running("router", "dispatcher", "outcomes"):
        await world.publish(*events)
        await eventually(lambda: made(prefect, name, 4))
        (finished,) = await eventually(world.finished)
    (letter,) = await world.dead.search(LetterQuery(), limit=5)
    assert (letter.event_id, letter.rule, letter.code, letter.kind) == ("e2", "pay", "parameters-refused", "event")
    assert letter.raw == events[2].to_json()
    assert "Parameter validation failed" in letter.reason
    assert finished["identity"] == identity_of("shop", "e2")
    assert finished["ok"] is False
    assert finished["dead"] == [
        {"letter_id": letter.id, "rule": "pay", "code": "parameters-refused", "reason": letter.reason}
    ]
    history = await world.history.get(identity_of("shop", "e2"))
    assert history is not None
    assert history.outcome == "failed"
    assert [dead.id for dead in history.dead] == [letter.id]


async def test_a_run_that_prefect_refuses_as_a_whole_call_does_not_take_its_neighbours_along(
    redis: AsyncRedis, prefect: PrefectApi
) -> None:
    # The limit of Prefect's own server is 512 KiB; ours is set higher, so that the call reaches it.
    world = World(redis, prefect, dispatcher_settings=DispatcherSettings(max_parameter_bytes=10_000_000))
    name = await deployment(prefect)
    world.use(
        {**RULE, "run": name, "parameters": {"amount": "{{ event.data.amount }}", "note": "{{ event.data.note }}"}}
    )
    await world.publish(*(order(n, id_=f"e{n}", note="x" * (600_000 if n == 3 else 3)) for n in range(8)))
    async with world.running("router", "dispatcher"):
        await eventually(lambda: made(prefect, name, 7))
        (letter,) = await eventually(lambda: world.dead.search(LetterQuery(), limit=5))
    assert (letter.event_id, letter.code) == ("e3", "prefect-refused")
    assert len(letter.reason) < 2000


async def test_too_large_parameters_are_refused_before_they_are_sent(world: World, prefect: PrefectApi) -> None:
    name = await deployment(prefect)
    world.use(
        {**RULE, "run": name, "parameters": {"amount": "{{ event.data.amount }}", "note": "{{ event.data.note }}"}}
    )
    async with world.running("router", "dispatcher"):
        await world.publish(order(1, note="x" * 600_000), order(2, note=""))
        await eventually(lambda: made(prefect, name, 1))
        (letter,) = await eventually(lambda: world.dead.search(LetterQuery(), limit=5))
    assert letter.code == "parameters-too-large"
    assert "dispatcher.max_parameter_bytes" in letter.reason


async def test_when_most_events_of_a_rule_fail_alike_it_holds_the_rest_and_tries_again(
    redis: AsyncRedis, prefect: PrefectApi
) -> None:
    settings = DispatcherSettings(circuit_least=5, longest_probe_seconds=0.3)
    world = World(redis, prefect, dispatcher_settings=settings)
    strict = {**SCHEMA, "required": ["amount", "note"]}
    name = await deployment(prefect, schema=strict)
    world.use({**RULE, "run": name})
    async with world.running("router", "dispatcher"):
        await world.publish(*orders(40))
        (held,) = await eventually(lambda: _held(world))
        assert held["cause"] == "parameters-refused"
        letters = await world.dead.count()
        assert letters < 20
        await deployment(prefect, name=name.partition("/")[0], schema=SCHEMA)
        await eventually(lambda: _not_held(world))
        await eventually(lambda: _drained(world))
    assert len(await runs_of(prefect, name)) + await world.dead.count() == 40
    assert await world.dead.count() < 30


async def test_a_rule_whose_templates_fail_parks_its_events_until_it_is_mended(
    world: World, prefect: PrefectApi
) -> None:
    name = await deployment(prefect)
    broken = {**RULE, "run": name, "parameters": {"amount": "{{ event.data.amuont }}"}}
    world.use(broken, {"name": "other", "on": "order.*", "resume": {"key": "k"}})
    async with world.running():
        await world.publish(*orders(30))
        await eventually(lambda: _parked(world, 20))
        assert await world.dead.count() == 10
        assert len(world.signals) == 30
        assert "rule pay has parked 20 events" in world.router.status()["degraded"]
        world.use({**RULE, "run": name})
        await world.publish(order(100))
        await eventually(lambda: made(prefect, name, 21))
        await eventually(lambda: _parked(world, 0))
        await eventually(lambda: _drained(world))
        for run in await runs_of(prefect, name):
            await set_state(prefect, run["id"], "COMPLETED")
        await eventually(lambda: _finished(world, 31))
    amounts = sorted(run["parameters"]["amount"] for run in await runs_of(prefect, name))
    assert amounts == [*range(10, 30), 100]
    assert sorted(one["ok"] for one in await world.finished()) == [False] * 10 + [True] * 21


async def test_events_that_a_template_fails_on_are_letters_while_the_rule_works_for_others(
    world: World, prefect: PrefectApi
) -> None:
    name = await deployment(prefect)
    world.use({**RULE, "run": name})
    async with world.running("router", "dispatcher"):
        for number in range(20):
            good, bad = order(number), order(0)
            await world.publish(good, bad.model_copy(update={"data": {}}))
        await eventually(lambda: made(prefect, name, 20))
        await eventually(lambda: _letters(world, 20))
    assert world.router.status()["parked"] == {}


async def test_what_a_rule_holds_is_judged_again_when_the_rules_change(redis: AsyncRedis, prefect: PrefectApi) -> None:
    world = World(redis, prefect, dispatcher_settings=DispatcherSettings(circuit_least=3, longest_probe_seconds=60))
    name = await deployment(prefect)
    world.use({**RULE, "run": name, "parameters": {"amount": "x{{ event.data.amount }}"}})
    async with world.running("router", "dispatcher"):
        await world.publish(*orders(250))
        await eventually(lambda: _held(world))
        await eventually(lambda: _letters(world, 3))
        world.use({**RULE, "run": name})
        await world.publish(order(1000))
        await eventually(lambda: made(prefect, name, 248), within_seconds=180)
        await eventually(lambda: _drained(world))
    assert await world.dead.count() == 3
    assert world.dispatcher.status()["held"] == []


async def test_events_held_for_a_deployment_that_the_rule_no_longer_names_go_to_the_one_it_names_now(
    world: World, prefect: PrefectApi
) -> None:
    await _held_and_then_made(world, prefect)


async def test_rules_that_change_while_a_call_is_under_way_are_asked_about_its_events_too(
    redis: AsyncRedis, prefect: PrefectApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    bury = DeadLetters.add

    async def slowly(box: DeadLetters, letter: DeadLetter) -> object:
        await asyncio.sleep(1.5)  # the rule holds its events by now, and the call that found that out is not over
        return await bury(box, letter)

    monkeypatch.setattr(DeadLetters, "add", slowly)
    world = World(redis, prefect)
    await _held_and_then_made(world, prefect)


async def _held_and_then_made(world: World, prefect: PrefectApi) -> None:
    """The rule names a deployment that is missing, then, once it holds its events, one that is there."""
    world.use({**RULE, "run": "never-there/default"})
    name = await deployment(prefect)
    async with world.running("router", "dispatcher"):
        await world.publish(*orders(3))
        await eventually(lambda: _held(world))
        world.use({**RULE, "run": name})
        await eventually(lambda: made(prefect, name, 3))
        await eventually(lambda: _drained(world))


async def test_events_held_when_the_service_stopped_go_by_the_rules_with_which_it_starts(
    world: World, redis: AsyncRedis, prefect: PrefectApi
) -> None:
    world.use({**RULE, "run": "never-there/default"})
    name = await deployment(prefect)
    async with world.running("router", "dispatcher"):
        await world.publish(*orders(3))
        await eventually(lambda: _held(world))
    again = World(redis, prefect)
    again.use({**RULE, "run": name})
    async with again.running("router", "dispatcher"):
        await eventually(lambda: made(prefect, name, 3))
        await eventually(lambda: _drained(again))


async def _held(world: World) -> Any:
    return world.dispatcher.status()["held"]


async def _not_held(world: World) -> bool:
    return not world.dispatcher.status()["held"]


async def _drained(world: World) -> bool:
    return not await world.queues.names()


async def _parked(world: World, count: int) -> bool:
    return sum(world.router.status()["parked"].values()) == count


async def _letters(world: World, count: int) -> bool:
    return await world.dead.count() == count


async def _finished(world: World, count: int) -> bool:
    return len(await world.finished()) == count
