"""Two events are two, whatever ids they share."""

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
    depth = await world.journal.depth()
    return not depth.unread and not depth.pending and not await world.queues.names()


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


async def _of(prefect: PrefectApi, name: str, count: int) -> list[dict[str, Any]] | None:
    found = await runs_of(prefect, name)
    return found if len(found) >= count else None


async def _finished(world: World, count: int) -> list[dict[str, Any]] | None:
    found = await world.finished()
    return found if len(found) >= count else None


async def _letters(count: int) -> Any:
    rows = await _call(dead.app, "list")
    return rows if len(rows) == count else None
