"""Two events are two, whatever ids they share; what was kept when the id alone named an event starts nothing twice."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from typer.testing import CliRunner

from events.event import Event
from events.identity import identity_of
from services.cli import dead, events, runs
from services.prefect_api.client import PrefectApi
from services.store.connection import AsyncRedis
from services.store.events.event_history import compact_json
from services.store.events.history import HISTORY
from services.store.events.journal import STREAM
from services.store.events.known_events import KNOWN_BY_ID
from services.store.events.open_effects import OPEN
from services.store.runs.created_runs import RUN, RUNS
from services.store.runs.dispatch_queues import DISPATCH_QUEUE, DISPATCH_QUEUES
from tests.integration.delivery.world import RULE, World, deployment, order, runs_of, set_state
from tests.support.waiting import eventually


@pytest.fixture(autouse=True)
def _installation(valkey_url: str, prefect_url: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLUICE_REDIS_URL", valkey_url)
    monkeypatch.setenv("PREFECT_API_URL", prefect_url)
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "home"))


async def _call(app: Any, *arguments: str, code: int = 0) -> Any:
    result = await asyncio.to_thread(CliRunner().invoke, app, [*arguments, "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if code == 0 else result.stderr


def _from(source: str, amount: Any, id_: str = "same") -> Event:
    return order(amount, id_=id_).model_copy(update={"source": source})


async def _still(world: World) -> bool:
    """Nothing is left to route or to create."""
    return not await world.queues.names() and (await world.journal.depth()).pending == 0


async def test_one_id_from_two_sources_is_two_events_all_the_way(world: World, prefect: PrefectApi) -> None:
    name = await deployment(prefect)
    world.use({**RULE, "run": name})
    async with world.running("router", "dispatcher", "outcomes"):
        taken = await world.publish(_from("/attacker", 1), _from("/shop", 2), _from("/shop", 2))
        assert [one.new for one in taken] == [True, True, False]
        found = await eventually(lambda: _of(prefect, name, 2))
        for run in found:
            await set_state(prefect, run["id"], "COMPLETED")
        ends = await eventually(lambda: _finished(world, 2))
        by_source = {run["parameters"]["amount"]: run["id"] for run in found}
        assert {one["identity"]: one["runs"][0]["run_id"] for one in ends} == {
            identity_of("/attacker", "same"): by_source[1],
            identity_of("/shop", "same"): by_source[2],
        }
        said = await _call(events.app, "show", "same", code=1)
        assert "2 events have the id 'same', from '/attacker', '/shop': choose one with --source" in said
        shown = await _call(events.app, "show", "same", "--source", "/shop")
        assert (shown["id"], shown["source"], shown["outcome"]) == ("same", "/shop", "done")
        assert [run["run_id"] for run in shown["runs"]] == [by_source[2]]
        assert {(row["id"], row["source"]) for row in await _call(events.app, "list")} == {
            ("same", "/attacker"),
            ("same", "/shop"),
        }
        assert "choose one with --source" in await _call(events.app, "replay", "same", code=1)
        rerun = await _call(events.app, "replay", "same", "--source", "/shop", "--rerun")
        assert rerun["events"] == 1
        three = await eventually(lambda: _of(prefect, name, 3))
        assert sorted(run["parameters"]["amount"] for run in three) == [1, 2, 2]
    for amount, source in ((1, "/attacker"), (2, "/shop")):
        run = await _call(runs.app, "show", by_source[amount])
        assert run["events"] == [{"id": "same", "source": source}]
        assert (run["event"], run["event_source"]) == ("same", source)


async def test_letters_of_two_events_with_one_id_are_two(world: World, prefect: PrefectApi) -> None:
    name = await deployment(prefect)
    world.use({**RULE, "run": name})
    async with world.running("router", "dispatcher"):
        await world.publish(_from("/a", "x"), _from("/b", "y"))
        rows = await eventually(lambda: _letters(2))
        assert {(row["event_id"], row["source"]) for row in rows} == {("same", "/a"), ("same", "/b")}
        (chosen,) = await _call(dead.app, "list", "--event", "same", "--source", "/b")
        await _call(dead.app, "replay", chosen["id"], "--set", "data.amount=7")
        (run,) = await eventually(lambda: _of(prefect, name, 1))
        await eventually(lambda: _still(world))
    assert run["idempotency_key"] == identity_of("/b", "same") + ":pay"
    assert [row["source"] for row in await _call(dead.app, "list")] == ["/a"]


async def test_a_rule_that_resumes_sends_one_signal_for_each_event(world: World) -> None:
    world.use({"name": "go", "on": "order.*", "resume": {"key": "k"}})
    async with world.running("router"):
        await world.publish(_from("/a", 1), _from("/b", 1))
        await eventually(lambda: _finished(world, 2))
    assert {signal.id for signal in world.signals} == {identity_of(source, "same") + ":go" for source in ("/a", "/b")}


class TestWhatWasKeptByTheIdAlone:
    """State as it was written when an event's id was its whole identity."""

    async def test_an_entry_that_nobody_has_routed_starts_its_one_run(self, world: World, prefect: PrefectApi) -> None:
        name = await self._deployment(world, prefect)
        await self._journal(world.redis, _from("/shop", 1))
        async with world.running("router", "dispatcher"):
            (repeat,) = await world.publish(_from("/shop", 1))
            assert not repeat.new
            (run,) = await eventually(lambda: _of(prefect, name, 1))
            await eventually(lambda: _still(world))
            assert run["idempotency_key"] == "same:pay"
            (other,) = await world.publish(_from("/other", 2))
            assert other.new
            await eventually(lambda: _of(prefect, name, 2))

    async def test_a_run_that_was_created_and_not_noted_is_not_created_again(
        self, world: World, prefect: PrefectApi
    ) -> None:
        name = await self._deployment(world, prefect)
        position = await self._journal(world.redis, _from("/shop", 1))
        await self._create(prefect, name)
        action = {"rule": "pay", "event_ids": ["same"], "deployment": name, "parameters": {"amount": 1}}
        payload = {"a": action, "s": "/shop", "t": "order.placed", "p": [position]}
        await world.redis.xadd(f"{DISPATCH_QUEUE}pay:{name}", {"d": json.dumps(payload)})
        await world.redis.sadd(DISPATCH_QUEUES, f"pay:{name}")
        await world.redis.hset(OPEN + "same", mapping={"!matched": "1", "pay#0": ""})
        await world.journal.read()
        await world.journal.acknowledge([position])
        async with world.running("dispatcher", "outcomes"):
            await eventually(lambda: _still(world))
            (run,) = await runs_of(prefect, name)
            await set_state(prefect, run["id"], "COMPLETED")
            (end,) = await eventually(lambda: _finished(world, 1))
        assert (end["identity"], end["ok"]) == ("same", True)

    async def test_a_run_in_hand_is_settled_and_neither_repeat_nor_replay_starts_another(
        self, world: World, prefect: PrefectApi
    ) -> None:
        name = await self._deployment(world, prefect)
        position = await self._journal(world.redis, _from("/shop", 1))
        await world.journal.read()
        await world.journal.acknowledge([position])
        run_id = await self._create(prefect, name)
        await world.redis.hset(
            RUN + run_id, mapping={"e": json.dumps([["same", position]]), "r": "pay", "d": name, "t": "pay#0"}
        )
        await world.redis.zadd(RUNS, {run_id: 0})
        await world.redis.hset(OPEN + "same", mapping={"!matched": "1", "pay#0": ""})
        for line in (["v", 1, position, "v1", "", [[0, "pay"]]], ["r", 2, run_id, "pay", name]):
            await world.redis.rpush(HISTORY + "same", compact_json(line))
        async with world.running("router", "dispatcher", "outcomes"):
            (repeat,) = await world.publish(_from("/shop", 1))
            assert (repeat.new, repeat.position) == (False, position)
            await set_state(prefect, run_id, "COMPLETED")
            (end,) = await eventually(lambda: _finished(world, 1))
            assert end["identity"] == "same"
            shown = await _call(events.app, "show", "same")
            assert (shown["source"], [run["run_id"] for run in shown["runs"]]) == ("/shop", [run_id])
            assert (await _call(runs.app, "show", run_id))["events"] == [{"id": "same", "source": "/shop"}]
            forecast = await _call(events.app, "replay", "same", "--dry-run")
            await _call(events.app, "replay", "same")
            await eventually(lambda: _still(world))
        assert forecast["events"] == 1
        assert [run["id"] for run in await runs_of(prefect, name)] == [run_id]

    async def test_a_letter_is_replayed_under_its_old_key(self, world: World, prefect: PrefectApi) -> None:
        name = await self._deployment(world, prefect)
        await self._journal(world.redis, _from("/shop", "x"))
        async with world.running("router", "dispatcher"):
            (row,) = await eventually(lambda: _letters(1))
            raw = json.loads(await world.redis.hget(f"sluice:dead:{row['id']}", "l"))  # type: ignore[arg-type]
            del raw["identity"]
            await world.redis.hset(f"sluice:dead:{row['id']}", "l", json.dumps(raw))
            await _call(dead.app, "replay", row["id"], "--set", "data.amount=3")
            (run,) = await eventually(lambda: _of(prefect, name, 1))
            await eventually(lambda: _still(world))
        assert run["idempotency_key"] == "same:pay"

    async def _deployment(self, world: World, prefect: PrefectApi) -> str:
        name = await deployment(prefect)
        world.use({**RULE, "run": name})
        return name

    async def _journal(self, redis: AsyncRedis, one: Event) -> str:
        fields = {"event": one.to_json(), "received": one.time.isoformat(), "listener": "http"}
        position = await redis.xadd(STREAM, fields)  # type: ignore[arg-type]
        await redis.set(KNOWN_BY_ID + one.id, position, px=600_000)
        return position.decode()

    async def _create(self, prefect: PrefectApi, name: str) -> str:
        flow, _, own = name.partition("/")
        found = await prefect.request("GET", f"/deployments/name/{flow}/{own}")
        body = {"parameters": {"amount": 1}, "idempotency_key": "same:pay"}
        return str((await prefect.request("POST", f"/deployments/{found['id']}/create_flow_run", json=body))["id"])


async def _of(prefect: PrefectApi, name: str, count: int) -> list[dict[str, Any]] | None:
    found = await runs_of(prefect, name)
    return found if len(found) >= count else None


async def _finished(world: World, count: int) -> list[dict[str, Any]] | None:
    found = await world.finished()
    return found if len(found) >= count else None


async def _letters(count: int) -> Any:
    rows = await _call(dead.app, "list")
    return rows if len(rows) == count else None
