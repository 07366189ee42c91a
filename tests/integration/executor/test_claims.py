"""Claiming a run of which Prefect told before its transaction was committed: not there yet is not gone."""

import asyncio
import json
import os
import sys
import time
from asyncio.subprocess import Process
from typing import Any
from uuid import uuid4

import pytest

from config.settings import CHECKOUT
from services.executor.messages import NotClaimed, ProcessMessage, RunClaimed
from services.executor.pipes import from_line
from tests.integration.executor.conftest import Bench
from tests.support.proxy import in_front_of
from tests.support.waiting import eventually

FLOW = "from prefect import flow\n\n@flow\ndef main(): return 'a result'\n"
SUSPENDS = """
from prefect import flow
from prefect.flow_runs import suspend_flow_run

@flow(persist_result=True)
def main():
    suspend_flow_run(timeout=None)
"""
# A run process without an executor: the run, a shelf, the state that it was queued for, and when.
RUN_PROCESS = """
import json, os, sys
from pathlib import Path
from services.executor.messages import ExecuteRun, Queued
from services.executor.pipes import to_line
from services.executor.process.flow_run_process import FlowRunProcess, Prepared, finish
from services.executor.process.suspension import Suspension

run_id, shelf, queued = sys.argv[1:]
FlowRunProcess(
    ExecuteRun(run_id, "a test", queued=Queued(**json.loads(queued))),
    lambda message: print("message", to_line(message).decode(), end="", flush=True),
    environment=dict(os.environ), shelf=Path(shelf), suspension=Suspension(run_id),
    prepared=Prepared(os.environ),
).run()
finish(0)
"""
NOT_THERE = b"HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


async def run_process(bench: Bench, run_id: str, *, state_id: str, at: float | None = None, url: str = "") -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        RUN_PROCESS,
        run_id,
        str(bench.home / "shelf"),
        json.dumps({"state_id": state_id, "at": time.time() + 3600 if at is None else at}),
        cwd=CHECKOUT,
        env={**os.environ, "PREFECT_API_URL": url or bench.api.url},
        stdout=asyncio.subprocess.PIPE,
    )


async def reports(process: Process) -> dict[type[ProcessMessage], Any]:
    """The last message of each kind."""
    output, _ = await process.communicate()
    lines = [line.removeprefix(b"message ") for line in output.splitlines() if line.startswith(b"message ")]
    return {type(message): message for message in map(from_line, lines)}


async def test_a_run_that_prefect_does_not_show_yet_is_claimed_once_it_does(bench: Bench):
    run_id = await bench.create(await bench.deploy(FLOW))
    state_id = (await bench.read(run_id))["state_id"]
    async with in_front_of(bench.api.url) as (proxy, url):
        proxy.instead = [(f"GET /api/flow_runs/{run_id} ".encode(), NOT_THERE)] * 3
        assert RunClaimed in await reports(await run_process(bench, run_id, state_id=state_id, url=url))
        assert proxy.instead == []
    assert (await bench.read(run_id))["state_type"] == "COMPLETED"


async def test_a_run_that_does_not_exist_is_given_up(bench: Bench):
    found = await reports(await run_process(bench, str(uuid4()), state_id=str(uuid4())))
    assert found[NotClaimed].why == "the run was deleted"


async def test_a_run_that_was_queued_long_ago_is_not_waited_for(bench: Bench):
    async with in_front_of(bench.api.url) as (proxy, url):
        run_id = str(uuid4())
        process = await run_process(bench, run_id, state_id=str(uuid4()), at=time.time() - 60, url=url)
        assert NotClaimed in await reports(process)
        assert sum(b"GET /api/flow_runs/" + run_id.encode() in piece for piece in proxy.heard) == 1


async def test_a_resumed_run_that_still_shows_as_suspended_is_claimed_once_it_does_not(bench: Bench):
    run_id = await bench.create(await bench.deploy(SUSPENDS))
    first = await run_process(bench, run_id, state_id=(await bench.read(run_id))["state_id"])
    assert RunClaimed in await reports(first)
    assert (await bench.read(run_id))["state_name"] == "Suspended"
    async with in_front_of(bench.api.url) as (proxy, url):
        second = await run_process(bench, run_id, state_id=str(uuid4()), url=url)

        async def seen() -> bool:
            return any(b"/flow_run_states/" in piece for piece in proxy.heard)

        await eventually(seen, what="the run process to see that the run is suspended still")
        await bench.api.request("POST", f"/flow_runs/{run_id}/resume", json={})
        assert RunClaimed in await reports(second)
    assert (await bench.read(run_id))["state_type"] == "COMPLETED"


@pytest.mark.parametrize("state", ["CANCELLED", "RUNNING"])
async def test_a_run_that_has_gone_on_from_the_state_it_was_queued_for_is_not_waited_for(bench: Bench, state: str):
    run_id = await bench.create(await bench.deploy(FLOW))
    state_id = (await bench.read(run_id))["state_id"]
    body = {"state": {"type": state}, "force": True}
    await bench.api.request("POST", f"/flow_runs/{run_id}/set_state", json=body)
    async with in_front_of(bench.api.url) as (proxy, url):
        assert NotClaimed in await reports(await run_process(bench, run_id, state_id=state_id, url=url))
        asked = b"".join(proxy.heard).count(f"GET /api/flow_runs/{run_id} ".encode())
    assert asked == 1
