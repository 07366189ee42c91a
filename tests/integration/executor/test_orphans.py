"""Nothing of an executor outlives it: slots whose role process, fork server and servers are gone end by themselves."""

from __future__ import annotations

import contextlib
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from tests.integration.executor.conftest import Bench, start_elsewhere
from tests.integration.executor.test_lost import is_gone, pid_in
from tests.support.proxy import Proxy
from tests.support.valkeys import own_valkey
from tests.support.waiting import eventually

SLEEPER = """
import os, time
from pathlib import Path
from prefect import flow

@flow
def main(out: str, closes: bool):
    Path(out).write_text(str(os.getpid()))
    if closes:
        os.closerange(3, 4096)
    time.sleep(3000)
"""


@pytest.mark.parametrize("closes", [False, True], ids=["sleeps", "closes its descriptors"])
async def test_a_slot_ends_with_its_run_when_nobody_is_left_to_report_to(
    bench: Bench, tmp_path: Path, closes: bool
) -> None:
    """Redis is killed, Prefect is behind a door that shuts, and those who started the slot are killed."""
    port = urlsplit(bench.api.url).port
    assert port
    async with Proxy(port) as door:
        with own_valkey(tmp_path / "valkey") as valkey:
            bench.redis_url = valkey.url
            deployment = await bench.deploy(SLEEPER)
            machine = start_elsewhere(bench, slots=2, url=bench.api.url.replace(str(port), str(door.port)))
            family: list[psutil.Process] = []
            try:
                out = bench.folder / "pid"
                await bench.create(deployment, parameters={"out": str(out), "closes": closes})
                run = psutil.Process(await pid_in(out))
                family = psutil.Process(machine.pid).children(recursive=True)
                assert run in family
                for process in (psutil.Process(machine.pid), *run.parent().parents()):
                    if process.pid == machine.pid or process in family:
                        process.kill()  # the role's process, its process template and its fork server; the slot stays
                machine.wait()
                valkey.kill()
                door.refusing = True
                door.cut()
                used: dict[int, float] = {}

                async def over() -> bool:
                    for one in family:
                        with contextlib.suppress(psutil.Error):
                            used[one.pid] = sum(one.cpu_times()[:2])
                    return all(is_gone(one.pid) for one in family)

                before = {one.pid: sum(one.cpu_times()[:2]) for one in family if not is_gone(one.pid)}
                await eventually(over, what="every process to be gone")
                spent = max(used[pid] - before[pid] for pid in before)
                assert spent < 5, "a process has spun while it waited"  # it is a tenth of a second
            finally:
                for process in family:
                    if process.is_running():
                        process.kill()
                if machine.poll() is None:
                    machine.kill()
