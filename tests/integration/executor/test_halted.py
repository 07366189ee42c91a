"""Processes of an executor that somebody stops (SIGSTOP): ended, replaced, and what they had in hand is settled."""

from __future__ import annotations

import asyncio
import signal
import sys

import psutil
import pytest

from tests.integration.executor.conftest import Bench, start_elsewhere
from tests.integration.executor.test_lost import SLEEPER, is_gone, pid_in
from tests.support.waiting import eventually

SHORT = "from prefect import flow\n@flow\ndef main(): pass\n"


@pytest.mark.parametrize("on_lost", ["crash", "restart"])
async def test_a_stopped_slot_is_ended_and_its_run_settled(bench: Bench, on_lost: str) -> None:
    await bench.start(slots=1)
    out = bench.folder / "pid"
    deployment = await bench.deploy(SLEEPER, job_variables={"sluice_on_lost": on_lost})
    run_id = await bench.create(deployment, parameters={"out": str(out), "seconds": 3000})
    run = psutil.Process(await pid_in(out))
    slot = run.parent()
    assert slot
    slot.send_signal(signal.SIGSTOP)
    ended = await bench.reach(run_id)
    assert ended["state_type"] == ("CRASHED" if on_lost == "crash" else "COMPLETED")
    assert is_gone(slot.pid)
    assert is_gone(run.pid)
    assert (await bench.run(await bench.deploy(SHORT)))["state_type"] == "COMPLETED"


async def test_a_stopped_slot_does_not_outlive_its_executor(bench: Bench) -> None:
    await bench.start(slots=1)
    out = bench.folder / "pid"
    run_id = await bench.create(await bench.deploy(SLEEPER), parameters={"out": str(out), "seconds": 3000})
    run = psutil.Process(await pid_in(out))
    slot = run.parent()
    assert slot
    slot.send_signal(signal.SIGSTOP)
    await bench.stop()
    await eventually(lambda: asyncio.sleep(0, is_gone(slot.pid) and is_gone(run.pid)), what="both to be gone")
    await bench.start(slots=1)
    assert (await bench.reach(run_id))["state_type"] == "CRASHED"


async def test_a_stopped_slot_that_is_idle_keeps_no_run_from_starting(bench: Bench) -> None:
    executor = await bench.start(slots=1)
    (slot,) = executor._pool.slots.by_pid
    psutil.Process(slot).send_signal(signal.SIGSTOP)
    assert (await bench.run(await bench.deploy(SHORT)))["state_type"] == "COMPLETED"
    assert is_gone(slot)


async def test_a_slot_that_is_continued_soon_keeps_its_run(bench: Bench) -> None:
    executor = await bench.start(slots=1)
    out = bench.folder / "pid"
    run_id = await bench.create(await bench.deploy(SLEEPER), parameters={"out": str(out), "seconds": 12})
    slot = psutil.Process(await pid_in(out)).parent()
    assert slot
    for _ in range(4):
        slot.send_signal(signal.SIGSTOP)
        await asyncio.sleep(1.5)  # how long it is halted
        slot.send_signal(signal.SIGCONT)
        await asyncio.sleep(0.5)  # and how long it goes on between
    assert (await bench.reach(run_id))["state_type"] == "COMPLETED"
    assert list(executor._pool.slots.by_pid) == [slot.pid]


async def test_a_stopped_warm_parent_is_replaced_and_runs_are_settled_by_the_next(bench: Bench) -> None:
    await bench.start(slots=1)
    out = bench.folder / "pid"
    run_id = await bench.create(await bench.deploy(SLEEPER), parameters={"out": str(out), "seconds": 3000})
    slot = psutil.Process(await pid_in(out)).parent()
    assert slot
    warm = slot.parent()
    assert warm
    warm.send_signal(signal.SIGSTOP)
    slot.kill()  # the fork server is to settle its run
    assert (await bench.reach(run_id))["state_type"] == "CRASHED"
    await eventually(lambda: asyncio.sleep(0, is_gone(warm.pid)), what="the stopped fork server to be gone")
    assert (await bench.run(await bench.deploy(SHORT)))["state_type"] == "COMPLETED"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no process template")
async def test_a_stopped_process_template_is_ended_and_warm_parents_are_interpreters(bench: Bench) -> None:
    deployment = await bench.deploy(SHORT)
    machine = start_elsewhere(bench)
    try:
        assert (await bench.run(deployment))["state_type"] == "COMPLETED"
        (process_template,) = psutil.Process(machine.pid).children()
        (warm,) = process_template.children()
        process_template.send_signal(signal.SIGSTOP)
        warm.kill()
        assert (await bench.run(deployment))["state_type"] == "COMPLETED"
        assert is_gone(process_template.pid)
    finally:
        machine.terminate()
        await asyncio.to_thread(machine.wait, 20)
