"""A run that an executor took off the queue and died before it had claimed it in Prefect."""

import asyncio
import time

import psutil
import pytest

from services.store.runs.executions import RUNNING
from tests.integration.executor.conftest import Bench, start_elsewhere

FLOW = "from prefect import flow\n@flow\ndef main(): pass\n"
TRIES = 6


async def taken(redis, bench: Bench, run_id: str) -> None:
    """Return the moment that a slot has the run."""
    deadline = time.monotonic() + 60
    while not await redis.hexists(RUNNING + bench.name, run_id):
        assert time.monotonic() < deadline, "nobody took the run"
        await asyncio.sleep(0)


@pytest.mark.slow
async def test_a_run_that_was_taken_and_not_claimed_is_run_by_another_executor(bench: Bench, redis):
    deployment = await bench.deploy(FLOW)
    for _ in range(TRIES):
        machine = start_elsewhere(bench)
        family = psutil.Process(machine.pid)
        run_id = await bench.create(deployment)
        await taken(redis, bench, run_id)
        for process in (*reversed(family.children(recursive=True)), family):
            process.kill()
        await asyncio.to_thread(machine.wait)
        if (await bench.read(run_id))["state_type"] == "SCHEDULED":
            break  # else it was claimed that very moment
    else:
        pytest.fail(f"in {TRIES} tries no run was caught between being taken and being claimed")
    await bench.start(slots=1)
    run = await bench.reach(run_id, within_seconds=60)
    assert run["state_type"] == "COMPLETED"
    assert run["run_count"] == 1
