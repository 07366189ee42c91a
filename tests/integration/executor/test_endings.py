"""Runs that do not end by themselves: crashed, cancelled, over a limit, handed back, lost."""

import asyncio
import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from services.executor.executor import Executor
from services.operations.role import run_parts
from services.store.connection import AsyncRedis
from tests.integration.executor.conftest import FINAL, Bench, start_elsewhere
from tests.support.control_groups import memory_limited
from tests.support.waiting import eventually

HOOKED = """
import ctypes, os, signal, subprocess, sys, time
from pathlib import Path
from prefect import flow

def note(flow, flow_run, state):
    with open(Path(__file__).with_suffix(".hooks"), "a") as out:
        out.write(f"{state.name}\\n")

"""


def hooks(bench: Bench, name: str) -> list[str]:
    path = bench.folder / f"{name}.hooks"
    return path.read_text().split() if path.exists() else []


def written(path: Path) -> str:
    return path.read_text() if path.exists() else ""


async def pid_of(path: Path) -> int:
    return int(await eventually(lambda: asyncio.sleep(0, written(path)), what="the flow to write its pid"))


@pytest.mark.parametrize(
    ("death", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
        ("ctypes.string_at(0)", "segmentation fault"),
        ("os._exit(3)", "exit code 3"),
        ("os._exit(0)", "exit code 0"),
        ("os.abort()", "SIGABRT"),
    ],
)
async def test_a_dead_run_process_makes_its_run_crashed_in_words_and_runs_the_hooks(bench: Bench, death, words):
    await bench.start(slots=1, lost_seconds=60)
    deployment = await bench.deploy(HOOKED + f"@flow(on_crashed=[note])\ndef main():\n    {death}\n", file="dying.py")
    run_id = await bench.create(deployment)
    await bench.reach(run_id, "RUNNING", "CRASHED")
    began = time.monotonic()
    run = await bench.reach(run_id)
    assert run["state_type"] == "CRASHED"
    assert words in run["state"]["message"]
    assert time.monotonic() - began < 30
    await eventually(lambda: asyncio.sleep(0, hooks(bench, "dying") == ["Crashed"]))
    assert (await bench.run(await bench.deploy("from prefect import flow\n@flow\ndef main(): pass\n")))[
        "state_type"
    ] == "COMPLETED"


async def test_a_cancelled_run_ends_with_its_children_and_runs_the_cancellation_hooks_only(bench: Bench):
    await bench.start()
    deployment = await bench.deploy(
        HOOKED
        + """
@flow(on_cancellation=[note], on_crashed=[note], on_failure=[note])
def main(out: str):
    child = subprocess.Popen(["sleep", "300"])
    apart = subprocess.Popen(["sleep", "301"], start_new_session=True)
    Path(out).write_text(f"{os.getpid()} {child.pid} {apart.pid}")
    time.sleep(300)
""",
        file="long.py",
    )
    out = bench.folder / "pids"
    run_id = await bench.create(deployment, parameters={"out": str(out)})
    await eventually(lambda: asyncio.sleep(0, len(written(out).split()) == 3))
    pids = [int(pid) for pid in out.read_text().split()]
    began = time.monotonic()
    await bench.api.request(
        "POST", f"/flow_runs/{run_id}/set_state", json={"state": {"type": "CANCELLING", "name": "Cancelling"}}
    )
    run = await bench.reach(run_id)
    assert run["state_type"] == "CANCELLED"
    assert time.monotonic() - began < 10
    assert "Crashed" not in await bench.states(run_id)
    await eventually(lambda: asyncio.sleep(0, not any(map(psutil.pid_exists, pids))), what="every process to be gone")
    assert hooks(bench, "long") == ["Cancelling"]


async def test_a_cancelled_run_that_ignores_sigterm_is_killed(bench: Bench):
    await bench.start(grace_seconds=1.0)
    deployment = await bench.deploy(
        HOOKED
        + """
@flow(on_cancellation=[note])
def main(out: str):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(out).write_text(str(os.getpid()))
    time.sleep(300)
""",
        file="deaf.py",
    )
    out = bench.folder / "pid"
    run_id = await bench.create(deployment, parameters={"out": str(out)})
    pid = await pid_of(out)
    await bench.api.request(
        "POST", f"/flow_runs/{run_id}/set_state", json={"state": {"type": "CANCELLING", "name": "Cancelling"}}
    )
    assert (await bench.reach(run_id))["state_type"] == "CANCELLED"
    assert not psutil.pid_exists(pid)
    assert hooks(bench, "deaf") == ["Cancelling"]


async def test_a_run_that_is_cancelled_while_it_waits_never_starts(bench: Bench):
    await bench.start(slots=1)
    slow = await bench.deploy("import time\nfrom prefect import flow\n@flow\ndef main(): time.sleep(2)\n")
    first = await bench.create(slow)
    await bench.reach(first, "RUNNING")
    second = await bench.create(slow)
    await bench.api.request(
        "POST", f"/flow_runs/{second}/set_state", json={"state": {"type": "CANCELLING", "name": "Cancelling"}}
    )
    assert (await bench.reach(second))["state_type"] == "CANCELLED"
    await bench.reach(first)
    assert "Running" not in await bench.states(second)


@pytest.mark.parametrize(
    ("variables", "body", "state", "words"),
    [
        ({"sluice_time_seconds": 1}, "time.sleep(60)", "TimedOut", "time limit of 1 s"),
        ({"sluice_memory_mb": 300}, "data = bytearray(500_000_000); time.sleep(60)", "Crashed", "300 MiB"),
    ],
)
async def test_a_run_over_its_limit_is_stopped_and_says_so(bench: Bench, variables, body, state, words):
    await bench.start(grace_seconds=1.0)
    deployment = await bench.deploy(HOOKED + f"@flow\ndef main():\n    {body}\n", job_variables=variables)
    run = await bench.run(deployment)
    assert run["state_name"] == state
    assert words in run["state"]["message"]


async def test_a_run_that_the_system_kills_for_memory_says_so_and_its_slot_goes_on(bench: Bench):
    deployment = await bench.deploy(
        HOOKED
        + """
@flow(on_crashed=[note])
def main(megabytes: int):
    held = [bytearray(b"x") * 20_000_000 for _ in range(megabytes // 20)]
""",
        file="greedy.py",
    )
    with memory_limited(600_000_000) as put:
        machine = start_elsewhere(bench)
        try:
            put(machine.pid)
            greedy = await bench.create(deployment, parameters={"megabytes": 4000})
            run = await bench.reach(greedy, within_seconds=60)
            assert run["state_type"] == "CRASHED"
            assert "OOM killer" in run["state"]["message"]
            await eventually(lambda: asyncio.sleep(0, hooks(bench, "greedy") == ["Crashed"]))
            assert (await bench.run(deployment, megabytes=20))["state_type"] == "COMPLETED"
        finally:
            machine.terminate()
            await asyncio.to_thread(machine.wait, 20)


async def test_runs_have_the_whole_time_that_the_settings_give_them_and_no_other_executor_takes_them(
    bench: Bench, redis: AsyncRedis
):
    """The role stops as in a container; its executor is silent for 5 s at most, and stops for more than ten."""
    await bench.start(slots=2, stop_seconds=10.0, run=lambda one: run_parts("executor", {"executor": one}, redis=redis))
    _, stopping = bench.executors.pop()
    deployment = await bench.deploy(
        """
        import time
        from pathlib import Path
        from prefect import flow

        @flow
        def main(seconds: float, mark: str):
            if not Path(mark).exists():
                Path(mark).touch()
                time.sleep(seconds)
        """
    )
    short = await bench.create(deployment, parameters={"seconds": 6.0, "mark": str(bench.folder / "short")})
    long = await bench.create(deployment, parameters={"seconds": 60.0, "mark": str(bench.folder / "long")})
    await bench.reach(short, "RUNNING")
    await bench.reach(long, "RUNNING")
    await bench.start(slots=1)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(stopping, 60)
    assert await bench.states(short) == ["Scheduled", "Pending", "Running", "Completed"]
    await bench.reach(long, "COMPLETED")
    states = await bench.states(long)
    assert "AwaitingRetry" in states
    assert "Crashed" not in states


@pytest.mark.parametrize("on_lost", ["crash", "restart"])
async def test_a_run_whose_slot_dies_is_crashed_or_started_again(bench: Bench, on_lost):
    executor = await bench.start(slots=1)
    deployment = await bench.deploy(
        HOOKED
        + """
@flow(on_crashed=[note])
def main(out: str):
    if not Path(out).exists():
        Path(out).write_text(str(os.getpid()))
        time.sleep(300)
""",
        file="lost.py",
        job_variables={"sluice_on_lost": on_lost},
    )
    out = bench.folder / "pid"
    run_id = await bench.create(deployment, parameters={"out": str(out)})
    pid = await pid_of(out)
    kill_slot(executor)
    run = await bench.reach(run_id)
    assert not psutil.pid_exists(pid)
    if on_lost == "crash":
        assert run["state_type"] == "CRASHED"
        assert "slot" in run["state"]["message"]
        await eventually(lambda: asyncio.sleep(0, hooks(bench, "lost") == ["Crashed"]))
    else:
        assert run["state_type"] == "COMPLETED"
        assert run["run_count"] == 2


async def test_a_dead_warm_parent_is_replaced_and_its_runs_go_on(bench: Bench):
    executor = await bench.start(slots=1)
    deployment = await bench.deploy("import time\nfrom prefect import flow\n@flow\ndef main(): time.sleep(3)\n")
    run_id = await bench.create(deployment)
    await bench.reach(run_id, "RUNNING")
    (generation,) = executor._pool._generations.values()
    generation.process.kill()
    assert (await bench.reach(run_id))["state_type"] == "COMPLETED"
    assert (await bench.run(deployment))["state_type"] == "COMPLETED"


def kill_slot(executor: Executor) -> None:
    (slot,) = executor._pool.slots.by_pid.values()
    os.kill(slot.process.pid, signal.SIGKILL)


async def test_a_flow_file_that_does_not_import_is_named_with_its_line_and_others_go_on(bench: Bench):
    executor = await bench.start()
    plain = "from prefect import flow\n\n{}\n\n@flow\ndef main(): pass\n"
    broken = await bench.deploy(plain.format("import no_such_module"), file="bad.py")
    good = await bench.deploy("from prefect import flow\n@flow\ndef main(): pass\n")
    run = await bench.run(broken)
    assert run["state_type"] == "CRASHED"
    assert "bad.py, line 3" in run["state"]["message"]
    assert "no_such_module" in run["state"]["message"]
    assert (await bench.run(good))["state_type"] == "COMPLETED"

    async def told() -> bool:
        return "bad.py, line 3" in executor.status().get("degraded", "")

    await eventually(told, what="the status to name the file")
    bench.write("bad.py", plain.format(""))
    assert (await bench.run(broken))["state_type"] == "COMPLETED"

    async def well() -> bool:
        return "degraded" not in executor.status()

    await eventually(well, what="the status to be well again")


SUSPENDED = """
import time
from pathlib import Path
from prefect import flow, task

@task(persist_result=True, cache_key_fn=lambda context, parameters: f"{context.task_run.flow_run_id}-{parameters['n']}")
def step(n: int, out: str):
    with open(out, "a") as file:
        file.write(f"{n} ")
    if not Path(out + "-quickly").exists():
        time.sleep(0.3)

@flow(persist_result=True)
def main(out: str):
    for n in range(100):
        step(n, out)
"""


@pytest.mark.parametrize("mode", ["fork", "subprocess"])
async def test_a_run_that_is_suspended_from_outside_stops_at_its_next_step_and_resumes_there(bench: Bench, mode: str):
    executor = await bench.start(slots=1, mode=mode)
    deployment = await bench.deploy(SUSPENDED)
    out = bench.folder / "steps"
    run_id = await bench.create(deployment, parameters={"out": str(out)})
    await eventually(lambda: asyncio.sleep(0, len(written(out).split()) >= 2), what="two steps")
    await bench.api.request(
        "POST",
        f"/flow_runs/{run_id}/set_state",
        json={"state": {"type": "PAUSED", "name": "Suspended", "state_details": {"pause_reschedule": True}}},
    )
    await eventually(lambda: asyncio.sleep(0, not executor.status()["running"]), what="the process to end")
    done = len(written(out).split())
    assert done < 100
    assert (await bench.read(run_id))["state_name"] == "Suspended"
    await asyncio.to_thread(Path(f"{out}-quickly").touch)
    await bench.api.request("POST", f"/flow_runs/{run_id}/resume", json={})
    assert (await bench.reach(run_id, *FINAL))["state_type"] == "COMPLETED"
    assert [int(n) for n in written(out).split()] == list(range(100))
