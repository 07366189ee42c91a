"""What a waiting flow hears of its own run over Prefect's event stream."""

from __future__ import annotations

import asyncio
from datetime import datetime
from uuid import UUID

from prefect.settings import PREFECT_API_URL, temporary_settings

from sluice.hearing import Hearing, hearing
from tests.integration.signals.conftest import Desk
from tests.support.proxy import in_front_of
from tests.support.waiting import eventually


async def _running(submission: Desk) -> str:
    flow = await submission.api.request("POST", "/flows/", json={"name": "heard"})
    body = {"flow_id": flow["id"], "state": {"type": "RUNNING"}}
    return str((await submission.api.request("POST", "/flow_runs/", json=body))["id"])


async def test_a_run_is_heard_to_leave_its_wait_and_nothing_else_is_a_hint(submission: Desk) -> None:
    """Prefect sends the events of the last minute ahead: an earlier wait's end says nothing about this one."""
    run_id = await _running(submission)
    await submission.set_state(run_id, "PAUSED")
    await submission.set_state(run_id, "RUNNING")
    await eventually(lambda: _stored(submission, run_id, "Running"))
    async with hearing(UUID(run_id)) as heard:
        heard.watch(await _paused(submission, run_id))
        await asyncio.sleep(2)  # nothing is to happen
        assert not heard.hint.is_set()
        await submission.set_state(run_id, "RUNNING")
        await asyncio.wait_for(heard.hint.wait(), 15)
        assert heard.taken()
        assert not heard.hint.is_set()
        assert not heard.taken()


async def test_a_wait_that_ended_before_it_was_watched_is_a_hint(submission: Desk) -> None:
    run_id = await _running(submission)
    async with hearing(UUID(run_id)) as heard:
        paused = await _paused(submission, run_id)
        await submission.set_state(run_id, "RUNNING")
        await eventually(lambda: _heard_something(heard))
        assert not heard.hint.is_set()
        heard.watch(paused)
        assert heard.hint.is_set()
        assert heard.taken()


async def test_what_may_have_been_missed_while_the_stream_was_lost_is_a_hint(
    submission: Desk, prefect_url: str
) -> None:
    run_id = await _running(submission)
    async with in_front_of(prefect_url) as (proxy, url):
        with temporary_settings(updates={PREFECT_API_URL: url}):
            async with hearing(UUID(run_id)) as heard:
                heard.watch(await _paused(submission, run_id))
                proxy.refusing = True
                proxy.cut()
                await eventually(lambda: _connected(heard, False))
                proxy.refusing = False
                await asyncio.wait_for(heard.hint.wait(), 30)
                heard.taken()
                await submission.set_state(run_id, "RUNNING")
                await asyncio.wait_for(heard.hint.wait(), 15)
                assert heard.taken()


async def _paused(submission: Desk, run_id: str) -> datetime:
    await submission.set_state(run_id, "PAUSED")
    return (await submission.runs.read(run_id)).entered


async def _heard_something(heard: Hearing) -> bool:
    return heard._moved is not None


async def _stored(submission: Desk, run_id: str, state: str) -> bool:
    narrowed = {"event": {"name": [f"prefect.flow-run.{state}"]}, "resource": {"id": [f"prefect.flow-run.{run_id}"]}}
    return bool((await submission.api.request("POST", "/events/filter", json={"filter": narrowed}))["events"])


async def _connected(heard: Hearing, there: bool) -> bool:
    return heard.connected.is_set() is there
