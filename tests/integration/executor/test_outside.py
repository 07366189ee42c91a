"""Runs that somebody else ends, deletes or starts again while their process works or waits."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import psutil
import pytest

from services.executor.executor import Executor
from tests.integration.executor.conftest import Bench, start_elsewhere
from tests.support.waiting import eventually

STEPS = """
import os, time
from pathlib import Path
from prefect import flow

@flow
def main(out: str):
    with open(out, "a") as file:
        print(os.getpid(), file=file)
    while True:
        time.sleep(0.1)
"""
WAITS = """
import os
from pathlib import Path
from prefect import flow
from sluice import wait_for_signal

@flow
def main(out: str):
    with open(out, "a") as file:
        print(os.getpid(), file=file)
    wait_for_signal("gate")
"""
PLAIN = WAITS.replace("from sluice import wait_for_signal", "from prefect.flow_runs import pause_flow_run").replace(
    'wait_for_signal("gate")', "pause_flow_run(timeout=300)"
)
ENDS = {"CANCELLED": "Cancelled", "FAILED": "Failed", "CRASHED": "Crashed", "COMPLETED": "Completed"}


def pids(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


async def begun(bench: Bench, source: str, state: str, **options: Any) -> tuple[str, int]:
    """A run in the state, and its process."""
    out = bench.folder / "pids"
    run_id = await bench.create(await bench.deploy(source, **options), parameters={"out": str(out)})
    await eventually(lambda: asyncio.sleep(0, pids(out)), what="the flow to begin")
    await bench.reach(run_id, state)
    return run_id, pids(out)[-1]


async def set_state(bench: Bench, run_id: str, *, force: bool = False, **state: Any) -> None:
    body = {"state": state, "force": force}
    await bench.api.request("POST", f"/flow_runs/{run_id}/set_state", json=body)


async def is_over(executor: Executor, pid: int) -> None:
    """Return once the process is gone and its slot is free."""

    async def over() -> bool:
        return not psutil.pid_exists(pid) and not executor.status()["running"]

    await eventually(over, what="the process to be gone and its slot free")


@pytest.mark.parametrize(
    ("source", "state", "end", "heard"),
    [
        pytest.param(STEPS, "RUNNING", "DELETED", True, id="works-deleted"),
        pytest.param(STEPS, "RUNNING", "CANCELLED", False, id="works-cancelled-unheard"),
        pytest.param(WAITS, "PAUSED", "CANCELLED", True, id="signal-cancelled"),
        pytest.param(WAITS, "PAUSED", "DELETED", True, id="signal-deleted"),
        pytest.param(PLAIN, "PAUSED", "CANCELLED", True, id="pause-cancelled"),
        pytest.param(PLAIN, "PAUSED", "DELETED", True, id="pause-deleted"),
    ],
)
async def test_the_process_of_a_run_that_is_cancelled_or_deleted_from_outside_ends(
    bench: Bench, source: str, state: str, end: str, *, heard: bool
):
    executor = await bench.start(slots=1)
    if not heard:
        executor._intake.changed = AsyncMock()
    run_id, pid = await begun(bench, source, state)
    if end == "DELETED":
        await bench.api.request("DELETE", f"/flow_runs/{run_id}")
    else:
        await set_state(bench, run_id, type=end, message="nobody wants it")
    await is_over(executor, pid)
    if end != "DELETED":
        run = await bench.read(run_id)
        assert (run["state_type"], run["state"]["message"]) == (end, "nobody wants it")


@pytest.mark.parametrize(
    ("end", "force"), [("CANCELLED", True), ("FAILED", False), ("CRASHED", True), ("COMPLETED", False)]
)
async def test_a_run_that_is_ended_from_outside_stays_as_it_was_set_and_frees_its_slot(
    bench: Bench, end: str, *, force: bool
):
    executor = await bench.start(slots=1)
    run_id, pid = await begun(bench, STEPS, "RUNNING")
    await set_state(bench, run_id, type=end, name=ENDS[end], force=force)
    await is_over(executor, pid)
    assert (await bench.states(run_id))[-1] == ENDS[end]
    assert (await bench.run(await bench.deploy("from prefect import flow\n@flow\ndef main(): pass\n")))[
        "state_type"
    ] == "COMPLETED"


async def test_a_run_that_has_ended_by_itself_finishes_what_it_does_at_its_end(bench: Bench):
    await bench.start(slots=1)
    deployment = await bench.deploy(
        """
        import time
        from pathlib import Path
        from prefect import flow

        def note(flow, flow_run, state):
            time.sleep(8)
            Path(flow_run.parameters["out"]).write_text("done")

        @flow(on_completion=[note])
        def main(out: str): pass
        """
    )
    out = bench.folder / "noted"
    run_id = await bench.create(deployment, parameters={"out": str(out)})
    await bench.reach(run_id, "COMPLETED")
    await eventually(lambda: asyncio.sleep(0, out.exists()), what="the hook to end")
    assert await bench.states(run_id) == ["Scheduled", "Pending", "Running", "Completed"]


async def test_a_flow_that_tries_again_keeps_its_process_between_its_tries(bench: Bench):
    await bench.start(slots=1)
    deployment = await bench.deploy(
        """
        import os
        from pathlib import Path
        from prefect import flow

        @flow(retries=1, retry_delay_seconds=6)
        def main(out: str):
            with open(out, "a") as file:
                print(os.getpid(), file=file)
            if len(Path(out).read_text().split()) < 2:
                raise ValueError("try again")
        """
    )
    out = bench.folder / "pids"
    run = await bench.run(deployment, out=str(out))
    assert run["state_type"] == "COMPLETED"
    assert len(set(pids(out))) == 1


@pytest.mark.parametrize("end", ["CANCELLING", "FAILED", "DELETED"])
async def test_a_run_whose_executor_is_gone_is_stopped_by_its_slot(bench: Bench, end: str):
    machine = start_elsewhere(bench)
    run_id, pid = await begun(bench, PLAIN, "PAUSED")
    os.kill(machine.pid, signal.SIGKILL)
    machine.wait()
    if end == "DELETED":
        await bench.api.request("DELETE", f"/flow_runs/{run_id}")
    else:
        await set_state(bench, run_id, type=end)
    await eventually(lambda: asyncio.sleep(0, not psutil.pid_exists(pid)), what="the process to be gone")
    if end != "DELETED":
        run = await bench.reach(run_id)
        assert run["state_type"] == ("CANCELLED" if end == "CANCELLING" else end)
