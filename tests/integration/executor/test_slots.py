"""Runs that wait in their processes do not keep others from starting, and one run is never in two processes."""

import asyncio
import contextlib
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from services.prefect_api.waiting import Resumed, WaitingRuns
from services.store.runs.executions import RUNNING, Execution
from tests.integration.executor.conftest import Bench, start_elsewhere
from tests.integration.executor.test_outside import STEPS, pids, set_state
from tests.support.waiting import eventually

WAITS = "from prefect import flow\nfrom sluice import wait_for_signal\n@flow\ndef main(): wait_for_signal('gate')\n"
SHORT = "from prefect import flow\n@flow\ndef main(): pass\n"
UNTIL = """
import time
from pathlib import Path
from prefect import flow
@flow
def main(done: str):
    while not Path(done).exists():
        time.sleep(0.02)
"""
THREE_OF_FOUR = ["RUNNING", "RUNNING", "RUNNING", "SCHEDULED"]


async def waiting(bench: Bench, executor: Any, count: int) -> list[str]:
    """As many runs that wait in their processes."""
    deployment = await bench.deploy(WAITS)
    runs = [await bench.create(deployment) for _ in range(count)]

    async def paused() -> bool:
        return executor.status()["paused"] == count

    await eventually(paused, what=f"{count} runs to wait")
    return runs


async def answer(bench: Bench, run_id: str) -> None:
    runs = WaitingRuns(bench.api)
    assert isinstance(await runs.resume(await runs.read(run_id), {"go_on": True}), Resumed)


async def test_runs_that_wait_cost_no_slots_and_others_start(bench: Bench):
    executor = await bench.start(slots=1)
    waiters = await waiting(bench, executor, 3)
    assert "degraded" not in executor.status()
    assert (await bench.run(await bench.deploy(SHORT)))["state_type"] == "COMPLETED"
    for run_id in waiters:
        await answer(bench, run_id)
        assert (await bench.reach(run_id))["state_type"] == "COMPLETED"

    async def as_before() -> bool:
        status = executor.status()
        return bool(status["paused"] == 0 and status["slots_ready"] == 1)

    await eventually(as_before, what="the additional slots to go")
    assert (await bench.run(await bench.deploy(SHORT)))["state_type"] == "COMPLETED"


async def test_slots_come_with_the_runs_that_need_them_and_go_when_they_have_rested(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("services.executor.pool.slots.REST_SECONDS", 0.5)
    executor = await bench.start(slots=3)
    assert executor.status()["slots_ready"] == 1
    done = bench.folder / "done"
    deployment = await bench.deploy(UNTIL)
    for _ in range(2):
        runs = [await bench.create(deployment, parameters={"done": str(done)}) for _ in range(4)]

        async def three_run(runs: list[str] = runs) -> bool:
            return sorted([(await bench.read(run_id))["state_type"] for run_id in runs]) == THREE_OF_FOUR

        await eventually(three_run, what="three runs to run, and the fourth to wait for a slot")
        done.touch()
        for run_id in runs:
            assert (await bench.reach(run_id))["state_type"] == "COMPLETED"
        done.unlink()

        async def one_left() -> bool:
            return bool(executor.status()["slots_ready"] == 1)

        await eventually(one_left, what="the slots that no run needs to go")


async def test_when_all_slots_are_held_by_runs_that_wait_the_status_says_so(bench: Bench):
    executor = await bench.start(slots=1, waiting=1)
    waiters = await waiting(bench, executor, 2)
    assert "all slots are held by 2 runs that wait" in executor.status()["reasons"]["slots-full"]
    executor._held_seconds = 0
    assert list(executor.status()["reasons"]) == ["slots-held"]
    short = await bench.create(await bench.deploy(SHORT))
    await answer(bench, waiters[0])
    assert (await bench.reach(short))["state_type"] == "COMPLETED"
    assert "degraded" not in executor.status()


async def test_a_run_that_is_suspended_and_resumed_from_outside_is_in_one_process_at_a_time(bench: Bench):
    executor = await bench.start(slots=2)
    out = bench.folder / "pids"
    run_id = await bench.create(await bench.deploy(STEPS), parameters={"out": str(out)})
    await eventually(lambda: asyncio.sleep(0, pids(out)), what="the flow to begin")
    details = {"pause_reschedule": True}
    await set_state(bench, run_id, type="PAUSED", name="Suspended", state_details=details)
    await bench.api.request("POST", f"/flow_runs/{run_id}/resume", json={})

    async def again() -> bool:
        found = pids(out)
        assert sum(psutil.pid_exists(pid) for pid in found) < 2, "the run is in two processes"
        return len(found) == 2

    await eventually(again, what="the flow to begin again")
    assert not psutil.pid_exists(pids(out)[0])
    assert executor.status()["running"] == 1
    await set_state(bench, run_id, type="CANCELLED")


async def test_a_run_begins_elsewhere_only_after_its_process_here_has_ended(bench: Bench, redis, checkout: Path):
    out = bench.folder / "pids"
    deployment = await bench.deploy(STEPS)
    machine = start_elsewhere(bench, slots=1)
    try:
        run_id = await bench.create(deployment, parameters={"out": str(out)})
        await eventually(lambda: asyncio.sleep(0, pids(out)), what="the flow to begin")
        await bench.start(slots=1)
        details = {"pause_reschedule": True}
        await set_state(bench, run_id, type="PAUSED", name="Suspended", state_details=details)
        await bench.api.request("POST", f"/flow_runs/{run_id}/resume", json={})

        async def again() -> bool:
            found = pids(out)
            assert sum(psutil.pid_exists(pid) for pid in found) < 2, "the run is in two processes"
            return len(found) == 2

        await eventually(again, what="the flow to begin again")
        await set_state(bench, run_id, type="CANCELLED")
    finally:
        machine.terminate()
        await asyncio.to_thread(machine.wait, 20)


async def test_a_run_that_another_executor_has_in_hand_is_not_claimed(bench: Bench, redis):
    held = Execution(run_id="", instance="elsewhere", since=time.time())
    run_id = await bench.create(await bench.deploy(SHORT))
    await redis.hset(RUNNING + bench.name, run_id, held.to_json())
    await redis.set("sluice:executor:alive:elsewhere", "1")
    executor = await bench.start(slots=1)

    async def put_off() -> bool:
        return executor.status()["waiting_for_their_time"] == 1

    await eventually(put_off, what="the run to be put off")
    assert (await bench.read(run_id))["state_type"] == "SCHEDULED"
    await redis.hdel(RUNNING + bench.name, run_id)
    assert (await bench.reach(run_id))["state_type"] == "COMPLETED"
    await redis.delete("sluice:executor:alive:elsewhere")


@pytest.mark.parametrize("state", ["RUNNING", "PAUSED"])
async def test_a_run_that_nobody_executes_although_prefect_says_so_is_settled(bench: Bench, state: str):
    run_id = await bench.create(await bench.deploy(SHORT))
    pending = {"type": "PENDING", "message": "Claimed by an executor that is no more, process 1"}
    for given in (pending, {"type": "RUNNING"}, *([{"type": "PAUSED", "name": "Paused"}] if state == "PAUSED" else [])):
        await set_state(bench, run_id, **given)
    await bench.start(slots=1)
    run = await bench.reach(run_id)
    assert (run["state_type"], "No process executes the run" in run["state"]["message"]) == ("CRASHED", True)


async def test_a_run_that_another_runner_claimed_is_left_to_it(bench: Bench):
    theirs, ours = [await bench.create(await bench.deploy(SHORT)) for _ in range(2)]
    for run_id, message in ((theirs, None), (ours, "Claimed by an executor that is no more, process 1")):
        await set_state(bench, run_id, type="PENDING", message=message)
        await set_state(bench, run_id, type="RUNNING")
    await bench.start(slots=1)
    await bench.reach(ours)
    assert (await bench.read(theirs))["state_type"] == "RUNNING"


async def test_what_redis_has_lost_of_a_run_that_goes_on_is_written_down_again(bench: Bench, redis):
    await bench.start(slots=1)
    out = bench.folder / "pids"
    run_id = await bench.create(await bench.deploy(STEPS), parameters={"out": str(out)})
    await bench.reach(run_id, "RUNNING")
    await redis.hdel(RUNNING + bench.name, run_id)

    async def known() -> bool:
        return bool(await redis.hexists(RUNNING + bench.name, run_id))

    await eventually(known, what="the run to be known again")
    assert (await bench.read(run_id))["state_type"] == "RUNNING"
    await set_state(bench, run_id, type="CANCELLED")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no process template, and no such measure")
async def test_a_run_that_waits_costs_little_memory(bench: Bench):
    machine = start_elsewhere(bench, slots=1)
    try:
        deployment = await bench.deploy(WAITS)
        assert (await bench.run(await bench.deploy(SHORT)))["state_type"] == "COMPLETED"
        root = psutil.Process(machine.pid)
        before = shares(root)
        runs = [await bench.create(deployment) for _ in range(6)]
        for run_id in runs:
            await bench.reach(run_id, "PAUSED")
        each = (shares(root) - before) / len(runs)
        print(f"{each:.1f} MiB for each run that waits")  # noqa: T201
        assert each < 90
        for run_id in runs:  # a run goes on when the role's process is terminated like this
            await answer(bench, run_id)
            await bench.reach(run_id)
    finally:
        machine.terminate()
        await asyncio.to_thread(machine.wait, 20)


def shares(root: psutil.Process) -> float:
    """The proportional share of memory of the process and all below it, in MiB."""
    total = 0.0
    for process in (root, *root.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):  # one that has ended meanwhile
            total += process.memory_full_info().pss
    return total / 1024 / 1024
