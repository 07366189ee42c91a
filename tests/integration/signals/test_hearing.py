"""What a waiting flow hears of its own run over Prefect's event stream."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

from prefect.settings import PREFECT_API_URL, temporary_settings

from sluice.hearing import Hearing, hearing
from tests.integration.signals.conftest import Desk
from tests.support.proxy import in_front_of
from tests.support.waiting import eventually


async def _running(desk: Desk) -> str:
    flow = await desk.api.request("POST", "/flows/", json={"name": "heard"})
    body = {"flow_id": flow["id"], "state": {"type": "RUNNING"}}
    return str((await desk.api.request("POST", "/flow_runs/", json=body))["id"])


async def test_a_run_is_heard_to_leave_its_wait_and_nothing_before_is_a_hint(desk: Desk) -> None:
    """Prefect sends the events of the last minute ahead: the run's start says nothing about its wait."""
    run_id = await _running(desk)
    await asyncio.sleep(1)
    async with hearing(UUID(run_id)) as heard:
        await desk.set_state(run_id, "PAUSED")
        paused = (await desk.runs.read(run_id)).state_id
        await asyncio.sleep(2)
        assert not heard.hint.is_set()
        await desk.set_state(run_id, "RUNNING")
        await asyncio.wait_for(heard.hint.wait(), 15)
        assert heard.taken(UUID(paused))
        assert not heard.hint.is_set()
        assert not heard.taken(UUID(paused))


async def test_leaving_another_wait_is_a_hint_and_not_more(desk: Desk) -> None:
    run_id = await _running(desk)
    async with hearing(UUID(run_id)) as heard:
        await desk.set_state(run_id, "PAUSED")
        await asyncio.sleep(1)
        await desk.set_state(run_id, "RUNNING")
        await asyncio.wait_for(heard.hint.wait(), 15)
        assert not heard.taken(uuid4())


async def test_what_may_have_been_missed_while_the_stream_was_lost_is_a_hint(desk: Desk, prefect_url: str) -> None:
    run_id = await _running(desk)
    async with in_front_of(prefect_url) as (proxy, url):
        with temporary_settings(updates={PREFECT_API_URL: url}):
            async with hearing(UUID(run_id)) as heard:
                await desk.set_state(run_id, "PAUSED")
                paused = UUID((await desk.runs.read(run_id)).state_id)
                proxy.refusing = True
                proxy.cut()
                await eventually(lambda: _connected(heard, False))
                proxy.refusing = False
                await asyncio.wait_for(heard.hint.wait(), 30)
                heard.taken(paused)
                await desk.set_state(run_id, "RUNNING")
                await asyncio.wait_for(heard.hint.wait(), 15)
                assert heard.taken(paused)


async def _connected(heard: Hearing, there: bool) -> bool:
    return heard.connected.is_set() is there
