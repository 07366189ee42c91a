"""An event whose state in Redis was written over still comes to its end, once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import pytest

from events.errors import TransientError
from events.event import Event
from services.operations.upkeep.event_repair import EventRepair
from services.operations.upkeep.inspector import declared_keys
from services.prefect_api.client import PrefectApi
from services.store.events.open_effects import OPEN
from services.store.inspection.damaged_events import DAMAGED
from services.store.inspection.key_inspection import KeyInspection
from services.store.keys import KeyList
from services.store.runs.created_runs import ACTIVE, RUN
from tests.integration.delivery.world import RULE, World, deployment, order, runs_of, set_state
from tests.support.waiting import eventually

KEYS = KeyList(key for keys in declared_keys().values() for key in keys)


async def _begun(world: World, prefect: PrefectApi) -> tuple[Event, str, str]:
    """An event with an open run; its id, and the deployment's name."""
    name = await deployment(prefect)
    world.use({**RULE, "run": name})
    event = order(1)
    async with world.running("router", "dispatcher"):
        await world.publish(event)
        (run,) = await eventually(lambda: runs_of(prefect, name))
        await eventually(lambda: world.runs.get(run["id"]))
    return event, str(run["id"]), name


async def _mended(world: World, prefect: PrefectApi) -> None:
    """As the inspector of a role and the router's repair do it."""
    await KeyInspection(world.redis, KEYS).everything()
    repair = EventRepair(world.redis, prefect=prefect)

    async def repaired() -> bool:
        with contextlib.suppress(TransientError):  # Prefect was busy: the next turn repairs it
            await repair.repair()
        return not await world.redis.exists(DAMAGED)

    await eventually(repaired, what="the event to be judged again")


async def _garbage(world: World, key: str, fields: Mapping[str, Any] | str) -> None:
    if isinstance(fields, str):
        await world.redis.set(key, fields)
    else:
        await world.redis.hset(key, mapping=fields)


DAMAGES: dict[str, tuple[str, Mapping[str, Any] | str]] = {
    "the event's state was replaced": (OPEN, "evil"),
    "the number of its rules was overwritten": (OPEN, {"!matched": "evil"}),
    "an effect was invented": (OPEN, {"x": "", "y": "+{"}),
    "what its run belongs to was overwritten": (RUN, {"e": "evil"}),
    "the run's rule was overwritten": (RUN, {"r": b"\xff\xfe", "t": b""}),
    "the run's record was replaced": (RUN, "evil"),
}


@pytest.mark.parametrize("ended", ["before", "after"])
@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_event_is_finished_once_with_its_run(
    world: World, prefect: PrefectApi, damage: str, ended: str
) -> None:
    event, run_id, name = await _begun(world, prefect)
    prefix, fields = DAMAGES[damage]
    key = prefix + (event.identity if prefix == OPEN else run_id)
    await _garbage(world, key, fields)
    if ended == "before":
        await set_state(prefect, run_id, "FAILED", message="it is over")
    await _mended(world, prefect)
    async with world.running():
        if ended == "after":
            await set_state(prefect, run_id, "FAILED", message="it is over")
        await world.runs.ask_again([run_id], at_ms=0)
        (finished,) = await eventually(world.finished)
        await asyncio.sleep(0.3)  # nothing more is to happen
    assert await world.finished() == [finished]
    assert [run["id"] for run in await runs_of(prefect, name)] == [run_id]
    assert finished["ok"] is False
    assert [run["run_id"] for run in finished["runs"]] == [run_id]
    assert not await world.redis.exists(ACTIVE + "pay"), "no limit on active runs counts it any more"


async def test_an_event_that_is_finished_is_not_announced_again(world: World, prefect: PrefectApi) -> None:
    event, run_id, _ = await _begun(world, prefect)
    async with world.running():
        await set_state(prefect, run_id, "COMPLETED")
        finished: list[dict[str, Any]] = await eventually(world.finished)
        await _garbage(world, OPEN + event.identity, "evil")
        await _mended(world, prefect)
        await asyncio.sleep(0.3)  # nothing more is to happen
    assert await world.finished() == finished
