"""Runs of executors that are no more, and runs whose end Prefect could not be told."""

import asyncio
import os
import signal
import socket
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from services.store.runs.executions import ALIVE, RUNNING
from tests.integration.executor.conftest import Bench, start_elsewhere
from tests.support.proxy import Proxy, in_front_of
from tests.support.waiting import eventually, wait_until

SLEEPER = """
import os, time
from pathlib import Path
from urllib.parse import urlsplit
from prefect import flow

@flow
def main(out: str, seconds: float):
    if Path(out).exists():
        return
    Path(out).write_text(str(os.getpid()))
    time.sleep(seconds)
"""


LET_GO = """
import os, time
from pathlib import Path
from urllib.parse import urlsplit
from prefect import flow

@flow
def main(out: str):
    Path(out).write_text(str(os.getpid()))
    while not Path(out + ".go").exists():
        time.sleep(0.1)
"""


async def pid_in(path: Path) -> int:
    return int(
        await eventually(
            lambda: asyncio.sleep(0, path.read_text() if path.exists() else ""),
            what="the flow to write its pid",
        )
    )


@pytest.mark.parametrize("on_lost", ["crash", "restart"])
async def test_a_run_of_a_dead_machine_is_found_by_another_executor(bench: Bench, checkout, redis, on_lost):
    deployment = await bench.deploy(SLEEPER, job_variables={"sluice_on_lost": on_lost})
    machine = start_elsewhere(bench)
    out = bench.folder / "pid"
    run_id = await bench.create(deployment, parameters={"out": str(out), "seconds": 300})
    pid = await pid_in(out)
    for process in (*psutil.Process(machine.pid).children(recursive=True), psutil.Process(machine.pid)):
        process.kill()
    machine.wait()
    wait_until(lambda: is_gone(pid), what="the run's process to be gone")
    await bench.start(slots=1)
    run = await bench.reach(run_id)
    if on_lost == "crash":
        assert run["state_type"] == "CRASHED"
        # Who of the dying family goes last may still see, and say, how it ended.
        assert any(words in run["state"]["message"] for words in ("has not been heard of for 5 s", "died"))
    else:
        assert run["state_type"] == "COMPLETED"
        assert run["run_count"] == 2
    await eventually(lambda: nothing(redis, bench))


async def nothing(redis, bench: Bench) -> bool:
    return await redis.hlen(RUNNING + bench.name) == 0


async def test_a_run_goes_on_when_only_the_roles_process_dies(bench: Bench, checkout, redis):
    deployment = await bench.deploy(SLEEPER)
    machine = start_elsewhere(bench)
    out = bench.folder / "pid"
    run_id = await bench.create(deployment, parameters={"out": str(out), "seconds": 10})
    pid = await pid_in(out)
    family = psutil.Process(machine.pid).children(recursive=True)
    os.kill(machine.pid, signal.SIGKILL)
    machine.wait()
    await bench.start(slots=1)
    run = await bench.reach(run_id)
    assert run["state_type"] == "COMPLETED"
    assert await bench.states(run_id) == ["Scheduled", "Pending", "Running", "Completed"]
    wait_until(lambda: not any(process.is_running() for process in family), what="the old slots to be gone")
    assert not psutil.pid_exists(pid)


async def test_a_run_whose_slot_dies_is_found_while_another_slot_lives(bench: Bench, checkout, redis):
    """Each slot that is left alone gives a sign of life for its own run, not for the other's."""
    deployment = await bench.deploy(LET_GO)
    machine = start_elsewhere(bench, slots=2)
    outs = [bench.folder / "dies", bench.folder / "lives"]
    dies, lives = [await bench.create(deployment, parameters={"out": str(out)}) for out in outs]
    of_the_dead, of_the_living = [psutil.Process(await pid_in(out)) for out in outs]
    machine.kill()
    machine.wait()
    for process in (of_the_dead.parent(), of_the_dead):
        process.kill()
    await bench.start(slots=1)
    assert (await bench.reach(dies))["state_type"] == "CRASHED"
    assert of_the_living.is_running(), "the other slot has ended, and the test has shown nothing"
    (bench.folder / "lives.go").touch()
    assert (await bench.reach(lives))["state_type"] == "COMPLETED"
    assert await bench.states(lives) == ["Scheduled", "Pending", "Running", "Completed"]
    await eventually(lambda: nothing(redis, bench))


BESIDE = """
import os, time
from pathlib import Path
from prefect import flow

@flow
def main(out: str):
    earlier = Path(out).read_text().split() if Path(out).exists() else []
    beside = [pid for pid in earlier if Path("/proc", pid).exists()]
    with open(out, "a") as file:
        file.write(f"{os.getpid()}\\n")
    Path(f"{out}.beside{len(earlier)}").write_text(" ".join(beside))
    while not Path(f"{out}.go").exists():
        time.sleep(0.1)
"""


@pytest.mark.parametrize("cut", ["redis", "redis and prefect"])
async def test_a_run_that_starts_elsewhere_has_ended_on_the_executor_that_is_cut_off(bench: Bench, checkout, cut: str):
    """Without Redis alone it hears from Prefect that the run starts again, and has time to end its process; without
    both nobody can tell it anything, and it ends the run by itself."""
    deployment = await bench.deploy(BESIDE, job_variables={"sluice_on_lost": "restart"})
    out = bench.folder / "pids"
    async with (
        in_front_of(bench.redis_url) as (to_redis, redis_url),
        Proxy(urlsplit(bench.api.url).port or 0) as to_prefect,
    ):
        far = replace(bench, redis_url=redis_url)
        machine = start_elsewhere(far, url=f"http://127.0.0.1:{to_prefect.port}/api")
        try:
            run_id = await bench.create(deployment, parameters={"out": str(out)})
            await eventually(lambda: asyncio.sleep(0, (bench.folder / "pids.beside0").exists()), what="the run begins")
            await bench.reach(run_id, "RUNNING")
            to_redis.swallow()
            if "prefect" in cut:
                to_prefect.swallow()
            await bench.start(slots=1)
            await eventually(
                lambda: asyncio.sleep(0, (bench.folder / "pids.beside1").exists()), what="it begins elsewhere"
            )
            assert (bench.folder / "pids.beside1").read_text() == "", "the first process of the run goes on"
            (bench.folder / "pids.go").touch()
            assert (await bench.reach(run_id))["state_type"] == "COMPLETED"
            to_redis.flow()
            to_prefect.flow()
        finally:
            machine.kill()
            machine.wait()


async def is_given_again(redis, sign: bytes) -> None:
    left = await redis.pttl(sign)

    async def longer() -> bool:
        nonlocal left
        before, left = left, await redis.pttl(sign)
        return left > before

    await eventually(longer, what="the sign of life to be given again", within_seconds=20)


async def test_an_executor_that_waits_for_prefect_gives_its_sign_of_life(bench: Bench, redis):
    await bench.deploy(LET_GO)
    async with Proxy(urlsplit(bench.api.url).port or 0) as proxy:
        machine = start_elsewhere(bench, url=f"http://127.0.0.1:{proxy.port}/api")
        try:

            async def asked() -> bool:
                """For all runs that need a process, as the comparison with Prefect asks."""
                return any(b"not_any_" in piece and b"CANCELLING" in piece for piece in proxy.heard)

            await eventually(asked, what="the comparison to be made")
            proxy.swallow()  # this comparison waits for Prefect, or, if it was answered just now, the next one
            (sign,) = [key async for key in redis.scan_iter(f"{ALIVE}{socket.gethostname()}-{machine.pid}-*")]
            for _ in range(8):  # each after a quarter of the time between two comparisons
                await is_given_again(redis, sign)
        finally:
            proxy.flow()
            machine.terminate()
            await asyncio.to_thread(machine.wait, 20)


async def test_the_register_is_empty_and_the_sign_of_life_gone_after_a_good_end(bench: Bench, redis):
    await bench.start()
    deployment = await bench.deploy("from prefect import flow\n@flow\ndef main(): pass\n")
    assert (await bench.run(deployment))["state_type"] == "COMPLETED"
    await eventually(lambda: nothing(redis, bench))
    await bench.stop()
    ours = (
        f"{ALIVE}{socket.gethostname()}-{os.getpid()}-*"  # a slot that another test left alone may still give its own
    )
    assert [key async for key in redis.scan_iter(ours)] == []


async def test_without_its_process_template_an_executor_goes_on_with_fresh_interpreters(bench: Bench):
    deployment = await bench.deploy(SLEEPER)
    machine = start_elsewhere(bench)
    try:
        first = await bench.create(deployment, parameters={"out": str(bench.folder / "one"), "seconds": 0})
        assert (await bench.reach(first))["state_type"] == "COMPLETED"
        (process_template,) = psutil.Process(machine.pid).children()
        (warm,) = process_template.children()
        process_template.kill()
        warm.kill()
        second = await bench.create(deployment, parameters={"out": str(bench.folder / "two"), "seconds": 0})
        assert (await bench.reach(second))["state_type"] == "COMPLETED"
        assert "fork server 2" in " ".join(word for child in children(machine.pid) for word in child.cmdline())
    finally:
        machine.terminate()
        await asyncio.to_thread(machine.wait, 20)


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def children(pid: int) -> list[psutil.Process]:
    return [child for child in psutil.Process(pid).children() if child.status() != psutil.STATUS_ZOMBIE]
