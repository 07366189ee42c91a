"""What the fork server has imported for the flows, and what it leaves to them."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from services.local.embedded_servers import claim_port
from services.prefect_api.client import connect
from services.store.connection import AsyncRedis
from services.store.runs.registered_files import RegisteredFile, remember
from tests.integration.executor.conftest import Bench
from tests.support.waiting import eventually

LIBRARY = "import os, time\ntime.sleep(0.3)\nPID = os.getpid()\n"
THREADED = LIBRARY + "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
FLOW = """
import json, os, threading, time
from prefect import flow
{imports}

@flow
def main(out: str, until: str = ""):
    while until and not os.path.exists(until):
        time.sleep(0.05)
    libraries = [module for name, module in globals().items() if name.endswith("_library")]
    with open(out, "w") as file:
        json.dump([[module.PID == os.getpid() for module in libraries], threading.active_count()], file)
"""


@pytest.fixture
def libraries(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of installed libraries that the executor finds; each says in which process it was imported."""
    bench.process_template = None  # it would know only the path of its own start
    folder = bench.folder / "site-packages"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")])))
    return folder


async def test_registered_flows_are_imported_before_prefect_answers(bench: Bench, redis: AsyncRedis):
    broken = bench.write("broken.py", "raise RuntimeError('it was imported')")
    await remember(redis, str(uuid4()), RegisteredFile(str(bench.folder), "broken.py:main"))
    await remember(redis, str(uuid4()), RegisteredFile("/of/another/machine", "there.py:main"))
    async with connect(f"http://127.0.0.1:{claim_port(0, 'a free port')}/api") as bench.api:
        starting = asyncio.create_task(bench.start())

        async def imported() -> dict[str, str]:
            return bench.executors[0][0].status()["broken_flows"] if bench.executors else {}

        found = await eventually(imported, what="the registered flow to be imported")
        assert found == {f"{broken}:main": f"{broken}, line 1: RuntimeError: it was imported"}, (
            "and none that is elsewhere"
        )
        starting.cancel()
        await bench.stop()


async def test_a_slow_library_is_imported_once_for_all_runs_unless_it_starts_a_thread(bench: Bench, libraries: Path):
    (libraries / "slow_library.py").write_text(LIBRARY)
    (libraries / "threaded_library.py").write_text(THREADED)
    deployment = await bench.deploy(FLOW.format(imports="import slow_library, threaded_library"))
    await bench.start(slots=1)
    out = bench.folder / "out"

    async def is_imported_before() -> bool:
        assert (await bench.run(deployment, out=str(out)))["state_type"] == "COMPLETED"
        (slow_is_the_runs_own, threaded_is_the_runs_own), _ = json.loads(out.read_text())
        assert threaded_is_the_runs_own
        return not slow_is_the_runs_own

    # On a busy machine the first fork server starts before it is told of the flow; then another takes its place.
    await eventually(is_imported_before, what="a run to find the slow library imported")


async def test_a_warm_parent_with_the_libraries_that_flows_have_come_to_need_takes_the_old_ones_place(
    bench: Bench, libraries: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("services.executor.pool.process_pool.RENEW_SECONDS", 0.0)
    (libraries / "slow_library.py").write_text(LIBRARY)
    deployment = await bench.deploy(FLOW.format(imports=""), file="growing.py")
    executor = await bench.start(slots=2)

    async def all_there() -> set[int]:
        slots = set(executor._pool.slots.by_pid)
        return slots if len(slots) == 2 else set()

    done = bench.folder / "done"
    long = await bench.create(deployment, parameters={"out": str(bench.folder / "old"), "until": str(done)})
    await bench.reach(long, "RUNNING")
    old = await eventually(all_there, what="both slot numbers to be taken")
    bench.write("growing.py", FLOW.format(imports="import slow_library"))

    async def replaced() -> bool:
        return len(set(executor._pool.slots.by_pid) - old) == 1

    await eventually(replaced, what="the idle slot number to be taken by a new slot")
    assert (await bench.run(deployment, out=str(bench.folder / "new")))["state_type"] == "COMPLETED"
    done.touch()
    assert (await bench.reach(long))["state_type"] == "COMPLETED"
    assert json.loads((bench.folder / "new").read_text())[0] == [False]
    assert json.loads((bench.folder / "old").read_text())[0] == []

    async def all_replaced() -> bool:
        return not old & set(executor._pool.slots.by_pid)

    await eventually(all_replaced, what="the other slot to go too")


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
async def test_a_fork_server_that_rests_lets_go_of_its_libraries_code_and_forks_slots_that_run_flows(bench: Bench):
    bench.process_template = None
    deployment = await bench.deploy(FLOW.format(imports="import pyarrow"))
    executor = await bench.start(slots=1)

    async def rests() -> bool:
        server = executor._pool.slots.fork_server
        return server is not None and code_of(server.process.pid, "libarrow.so") == 0

    await eventually(rests, what="the fork server to hold none of the library's code")
    (slot,) = executor._pool.slots.by_pid
    os.kill(slot, signal.SIGKILL)
    assert (await bench.run(deployment, out=str(bench.folder / "out")))["state_type"] == "COMPLETED"
    assert slot not in executor._pool.slots.by_pid


def code_of(pid: int, library: str) -> int | None:
    """How many kB of a library's machine code a process holds; None while it has not loaded it."""
    found, mine = None, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            mine = " r-xp " in line and library in line
        elif mine and line.startswith("Rss:"):
            found = (found or 0) + int(line.split()[1])
    return found
