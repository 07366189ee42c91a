"""How runs end is heard by websocket, and found by asking where the websocket had nothing to say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from events.identity import identity_of
from services.common.metrics import REGISTRY
from services.prefect_api import events
from services.prefect_api.client import PrefectApi
from services.prefect_api.events import Connected
from services.prefect_api.runs import StateChange, news_of
from services.runs import run_state_tracker
from services.runs.run_state_tracker import RunStateTracker
from tests.integration.delivery.world import RULE, World, deployment, order, runs_of, set_state
from tests.support.waiting import PATIENCE_SECONDS, eventually


async def _deaf(**_: object) -> AsyncIterator[StateChange | Connected]:
    """A subscription on which nothing is ever heard."""
    yield Connected()
    await asyncio.Event().wait()


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """No state is heard of: what is learnt is learnt by asking."""
    monkeypatch.setattr(events, "state_changes", _deaf)


def _outcomes(world: World) -> RunStateTracker:
    return RunStateTracker(
        prefect=world.prefect,
        recorder=world.progress,
        history=world.history,
        returns=world.returns,
    )


async def _one_run(world: World, prefect: PrefectApi) -> str:
    """Have one run created while nobody listens; answers its id."""
    name = await deployment(prefect)
    world.use({**RULE, "run": name})
    async with world.running("router", "dispatcher"):
        await world.publish(order(1))
        (run,) = await eventually(lambda: runs_of(prefect, name))
        await eventually(lambda: world.runs.get(run["id"]))
    return str(run["id"])


async def _followed(world: World) -> dict[str, object]:
    task = asyncio.create_task(_outcomes(world).run())
    try:
        (finished,) = await eventually(world.finished)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return dict(finished)


@pytest.mark.usefixtures("deaf")
async def test_a_run_that_ended_while_nobody_listened_is_found_at_the_next_start(
    world: World, prefect: PrefectApi
) -> None:
    run_id = await _one_run(world, prefect)
    await world.runs.contact(0)
    await set_state(prefect, run_id, "FAILED", message="nobody was there")
    finished = await _followed(world)
    assert finished["runs"][0]["message"] == "nobody was there"


@pytest.mark.usefixtures("deaf")
async def test_an_open_run_is_asked_about_when_its_time_comes(
    world: World, prefect: PrefectApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_state_tracker, "POLL_SECONDS", 0.2)
    run_id = await _one_run(world, prefect)
    following = asyncio.create_task(_outcomes(world).run())
    try:
        await asyncio.sleep(0.5)  # it has looked around and found nothing to catch up with
        await set_state(prefect, run_id, "COMPLETED")
        await world.runs.ask_again([run_id], at_ms=0)
        (finished,) = await eventually(world.finished)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    assert finished["ok"] is True


def _observed(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, {"rule": RULE["name"], **labels}) or 0.0


async def test_each_step_of_an_event_is_timed_by_its_rule(world: World, prefect: PrefectApi) -> None:
    steps = (
        "sluice_event_journal_seconds",
        "sluice_event_decision_seconds",
        "sluice_run_creation_seconds",
        "sluice_run_start_seconds",
        "sluice_event_latency_seconds",
        "sluice_run_duration_seconds",
    )
    before = {step: _observed(f"{step}_count") for step in steps}
    took = _observed("sluice_run_duration_seconds_sum")
    ended = _observed("sluice_runs_ended_total", state="completed")
    run_id = await _one_run(world, prefect)
    tracker = _outcomes(world)

    async def has_begun() -> bool:
        return _observed("sluice_run_start_seconds_count") > before["sluice_run_start_seconds"]

    async def is_over() -> bool:
        return _observed("sluice_runs_ended_total", state="completed") == ended + 1

    async def listens() -> bool:
        return tracker.connected

    following = asyncio.create_task(tracker.run())
    try:
        await eventually(listens)
        await set_state(prefect, run_id, "RUNNING")
        await eventually(has_begun)
        await set_state(prefect, run_id, "COMPLETED")
        await eventually(is_over)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    assert {step: _observed(f"{step}_count") for step in steps} == {step: count + 1 for step, count in before.items()}
    assert 0 < _observed("sluice_run_duration_seconds_sum") - took < PATIENCE_SECONDS


@pytest.mark.usefixtures("deaf")
async def test_a_run_that_was_deleted_is_over(world: World, prefect: PrefectApi) -> None:
    run_id = await _one_run(world, prefect)
    await prefect.request("DELETE", f"/flow_runs/{run_id}")
    await world.runs.ask_again([run_id], at_ms=0)
    finished = await _followed(world)
    (run,) = finished["runs"]
    assert (run["state_type"], run["state_name"]) == ("CANCELLED", "Deleted")  # type: ignore[has-type]
    assert finished["ok"] is False


async def test_of_runs_that_only_wait_nothing_is_told_and_deleted_ones_are_missed(prefect: PrefectApi) -> None:
    name = await deployment(prefect)
    found = await prefect.request("GET", f"/deployments/name/{name}")
    ids = []
    for _ in range(5):
        path = f"/deployments/{found['id']}/create_flow_run"
        ids.append((await prefect.request("POST", path, json={"parameters": {"amount": 1}}))["id"])
    await set_state(prefect, ids[1], "RUNNING")
    await set_state(prefect, ids[2], "FAILED", message="why")
    await set_state(prefect, ids[3], "PAUSED")
    news = await news_of(prefect, ids)
    assert {now.run_id: (now.state_type, now.message) for now in news.moved} == {
        ids[1]: ("RUNNING", ""), ids[2]: ("FAILED", "why")
    }  # fmt: skip
    assert news.gone == ()
    await prefect.request("DELETE", f"/flow_runs/{ids[4]}")
    await prefect.request("DELETE", f"/flow_runs/{ids[2]}")
    assert sorted((await news_of(prefect, ids)).gone) == sorted([ids[2], ids[4]])


async def test_runs_of_others_are_left_alone(world: World, prefect: PrefectApi) -> None:
    name = await deployment(prefect)
    async with world.running("outcomes"):
        await eventually(lambda: _ready(world))
        flow = name.partition("/")[0]
        (found,) = await prefect.request("POST", "/deployments/filter", json={"flows": {"name": {"any_": [flow]}}})
        run = await prefect.request(
            "POST",
            f"/deployments/{found['id']}/create_flow_run",
            json={"parameters": {"amount": 1}, "tags": ["sluice"]},
        )
        await set_state(prefect, run["id"], "COMPLETED")
        await asyncio.sleep(0.3)  # nothing is to happen
    assert await world.finished() == []
    assert await world.runs.get(run["id"]) is None


async def test_a_run_that_pauses_and_goes_on_is_open_until_its_end(world: World, prefect: PrefectApi) -> None:
    name = await deployment(prefect)
    world.use({**RULE, "run": name})
    async with world.running():
        await world.publish(order(1, id_="e"))
        (run,) = await eventually(lambda: runs_of(prefect, name))
        await eventually(lambda: world.runs.get(run["id"]))
        for state in ("RUNNING", "PAUSED", "RUNNING", "PAUSED", "RUNNING"):
            await set_state(prefect, run["id"], state)
        assert await world.runs.active("pay") == 1
        await set_state(prefect, run["id"], "COMPLETED")
        await eventually(world.finished)
    history = await world.history.get(identity_of("shop", "e"))
    assert history is not None
    assert [state.type for state in history.runs[0].states] == ["RUNNING", "COMPLETED"]


async def _ready(world: World) -> bool:
    return bool(world.outcomes.status()["ready"])
