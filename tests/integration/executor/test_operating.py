"""What operators use: the tools of RQ, deploying, the commands, priorities, the status."""

import asyncio
import json
import os
import subprocess
import sys
import time
from datetime import timedelta

import psutil
import pytest
from rq.command import send_kill_horse_command, send_shutdown_command
from rq.registry import FinishedJobRegistry
from rq.serializers import JSONSerializer

from config.settings import RedisSettings
from services.store.connection import connect_sync
from tests.integration.executor.conftest import Bench, start_elsewhere
from tests.support.waiting import eventually
from tests.support.warm import run_module

SLEEPER = "import time\nfrom prefect import flow\n@flow\ndef main(seconds: float = 0): time.sleep(seconds)\n"
HELD = """
import time
from pathlib import Path
from prefect import flow
@flow
def main(gate: str):
    while not Path(gate).exists():
        time.sleep(0.05)
"""


@pytest.fixture
def rq_redis(valkey_url: str):
    client = connect_sync(valkey_url, RedisSettings())
    yield client
    client.close()


def sluice(bench: Bench, checkout, *words: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "SLUICE_HOME": str(bench.home), "SLUICE_REDIS_URL": bench.redis_url}
    return run_module("services.cli", *words, cwd=checkout, env=env)


def titles() -> set[str]:
    """What lists of processes show of the executors' processes."""
    words = (process.info["cmdline"] or [""] for process in psutil.process_iter(["cmdline"]))
    return {line.strip().removeprefix("sluice: ") for line in map(" ".join, words) if line.startswith("sluice: ")}


async def test_rq_info_shows_the_slots_and_the_queue(bench: Bench, rq_redis):
    await bench.start(slots=2)
    deployment = await bench.deploy(SLEEPER)
    assert (await bench.run(deployment))["state_type"] == "COMPLETED"
    info = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "rq.cli", "info", "--url", bench.redis_url, "--raw"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"queue sluice-runs-{bench.name} 0" in info.stdout
    assert info.stdout.count("worker ") == 2
    registry = FinishedJobRegistry(f"sluice-runs-{bench.name}", connection=rq_redis, serializer=JSONSerializer)
    await eventually(lambda: asyncio.sleep(0, registry.get_job_count() == 1), what="the job to be kept as finished")


async def test_rq_commands_reach_the_slots(bench: Bench, rq_redis):
    executor = await bench.start(slots=1)
    run_id = await bench.create(await bench.deploy(SLEEPER), parameters={"seconds": 300})
    run = await bench.reach(run_id, "RUNNING")
    shown = {f"slot 0: run {run_id[:8]}", f"run {run_id[:8]} {run['name']}", "process template"}
    await eventually(lambda: asyncio.sleep(0, titles() >= shown), what="lists of processes to show slot and run")
    assert any(title.startswith("fork server ") for title in titles())
    (key,) = [key.decode() for key in rq_redis.smembers("rq:workers")]
    send_kill_horse_command(rq_redis, key.removeprefix("rq:worker:"))
    run = await bench.reach(run_id)
    assert run["state_type"] == "CRASHED"
    assert "SIGKILL" in run["state"]["message"]
    (before,) = executor._pool.slots.by_pid
    send_shutdown_command(rq_redis, key.removeprefix("rq:worker:"))

    async def another() -> bool:
        return bool(executor._pool.slots.by_pid) and before not in executor._pool.slots.by_pid

    await eventually(another, what="another slot to take the slot number")


async def test_urgent_runs_go_first(bench: Bench):
    await bench.start(slots=1)
    normal = await bench.deploy(SLEEPER)
    urgent = await bench.deploy(SLEEPER, job_variables={"sluice_priority": "high"})
    first = await bench.create(normal, parameters={"seconds": 1.5})
    await bench.reach(first, "RUNNING")
    waiting = [await bench.create(normal) for _ in range(3)]
    last = await bench.create(urgent)
    done = await bench.reach(last)
    ended = [(await bench.reach(run_id))["start_time"] for run_id in waiting]
    assert done["start_time"] < min(ended)


async def test_the_status_tells_what_runs_what_waits_and_how_fast_runs_start(bench: Bench):
    executor = await bench.start(slots=1)
    deployment, gate = await bench.deploy(HELD), bench.folder / "gate"
    runs = [await bench.create(deployment, parameters={"gate": str(gate)})]
    await bench.reach(runs[0], "RUNNING")
    runs.append(await bench.create(deployment, parameters={"gate": str(gate)}))

    async def told() -> bool:
        status = executor.status()
        return bool(status["running"] == 1 and status["waiting"] == 1 and status["oldest_waiting_seconds"] > 0)

    await eventually(told, what="the status to show one running and one waiting")
    assert executor.status()["runs"][0]["run"] == runs[0]
    gate.touch()
    for run_id in runs:
        await bench.reach(run_id)
    status = executor.status()
    assert status["starts_per_minute"] == 2
    assert status["start_latency_seconds"]["p50"] > 0


async def test_a_lost_job_is_queued_again(bench: Bench, rq_redis, monkeypatch):
    monkeypatch.setattr("services.executor.intake.run_intake.OVERDUE", timedelta(seconds=1))
    run_id = await bench.create(await bench.deploy(SLEEPER))
    state_id = (await bench.read(run_id))["state_id"]
    rq_redis.hset(
        f"rq:job:{state_id}",
        mapping={
            "data": json.dumps(["services.jobs.execute_run", None, [run_id, state_id], {}]),
            "status": "queued",
            "origin": f"sluice-runs-{bench.name}",
        },
    )
    await bench.start(slots=1)
    assert (await bench.reach(run_id))["state_type"] == "COMPLETED"


async def test_a_file_that_changed_after_its_event_is_not_loaded(bench: Bench):
    await bench.start(slots=1)
    file = bench.write("data.csv", "a,b\n")
    seen = file.stat()
    version = f"{seen.st_ino}-{seen.st_size}-{seen.st_mtime_ns}"
    deployment = await bench.deploy(SLEEPER)
    variables = {"sluice_file": {"path": str(file), "version": version}}
    same = await bench.reach(await bench.create(deployment, job_variables=variables))
    assert same["state_type"] == "COMPLETED"
    file.write_text("a,b\n1,2\n")
    changed = await bench.reach(await bench.create(deployment, job_variables=variables))
    assert changed["state_type"] == "FAILED"
    assert "has changed since it was announced" in changed["state"]["message"]
    assert "Running" not in await bench.states(changed["id"])


async def test_a_run_opens_files_of_watched_folders_and_of_its_deployments_only(bench: Bench):
    watched, other, secret = (bench.write(f"{name}/a.csv", name) for name in ("watched", "other", "secret"))
    await bench.start(slots=1, folders=[str(watched.parent)])
    deployment = await bench.deploy(
        """
        from prefect import flow
        from sluice import open_file

        @flow
        def main(path, after=None):
            if after:
                open(path, "w").write(after)
            with open_file(path) as file:
                return file.read().decode()
        """,
        job_variables={"sluice_folders": [str(other.parent)]},
    )
    for path in (watched, other):
        assert (await bench.reach(await bench.create(deployment, parameters={"path": str(path)})))["state_type"] == (
            "COMPLETED"
        )
    refused = await bench.reach(await bench.create(deployment, parameters={"path": str(secret)}))
    assert refused["state_type"] == "FAILED"
    assert "lies in no watched folder" in refused["state"]["message"]
    seen = watched.stat()
    announced = {"path": str(watched), "version": f"{seen.st_ino}-{seen.st_size}-{seen.st_mtime_ns}"}
    changed = await bench.reach(
        await bench.create(
            deployment,
            parameters={"path": str(watched), "after": "changed once the run has begun"},
            job_variables={"sluice_file": announced},
        )
    )
    assert changed["state_type"] == "FAILED"
    assert "has changed since it was announced" in changed["state"]["message"]


async def test_one_run_leaves_nothing_behind_for_the_next(bench: Bench):
    await bench.start(slots=1)
    spoiler = await bench.deploy(
        """
        import decimal, logging, os, random, sys, warnings
        from prefect import flow

        @flow
        def main():
            os.environ["SPOILT"] = "yes"
            os.chdir("/")
            random.seed(1)
            logging.getLogger("shared").addHandler(logging.NullHandler())
            sys.modules["spoilt"] = sys
            decimal.getcontext().prec = 3
            warnings.simplefilter("error")
        """
    )
    looker = await bench.deploy(
        """
        import decimal, json, logging, os, random, sys, threading
        from pathlib import Path
        from prefect import flow

        @flow
        def main(out: str):
            found = [os.environ.get("SPOILT"), os.getcwd() == str(Path(__file__).resolve().parent),
                     logging.getLogger("shared").handlers, "spoilt" in sys.modules, decimal.getcontext().prec]
            with open(out, "a") as file:
                file.write(json.dumps([found, random.random()]) + "\\n")
        """
    )
    out = bench.folder / "found"
    for _ in range(2):
        assert (await bench.run(spoiler))["state_type"] == "COMPLETED"
        assert (await bench.run(looker, out=str(out)))["state_type"] == "COMPLETED"
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [found for found, _ in lines] == [[None, True, [], False, 28]] * 2
    assert lines[0][1] != lines[1][1]


async def test_the_runs_commands_list_show_print_and_cancel(bench: Bench, checkout):
    await bench.start(slots=1)
    deployment = await bench.deploy(
        """
        import time
        from prefect import flow, get_run_logger

        @flow
        def main(seconds: float = 0):
            get_run_logger().info("hello from the flow")
            time.sleep(seconds)
        """
    )
    name = f"long-{bench.name}"
    done = await bench.run(deployment)
    await bench.all_logs(done["id"])
    long = await bench.create(deployment, parameters={"seconds": 300}, name=name)
    await bench.reach(long, "RUNNING")

    async def ask(*words: str) -> subprocess.CompletedProcess:
        return await asyncio.to_thread(sluice, bench, checkout, "runs", *words)

    flow = (await bench.api.request("GET", f"/flows/{done['flow_id']}"))["name"]
    listed = json.loads((await ask("list", "--json", "--deployment", flow, "--state", "COMPLETED")).stdout)
    assert [(run["id"], run["state"]) for run in listed] == [(done["id"], "Completed")]
    shown = json.loads((await ask("show", name, "--json")).stdout)
    assert (shown["id"], shown["state_type"], shown["parameters"]) == (long, "RUNNING", {"seconds": 300})
    logs = json.loads((await ask("logs", done["id"], "--json")).stdout)
    assert "hello from the flow" in [line["message"] for line in logs]
    began = time.monotonic()
    cancelled = await ask("cancel", name)
    assert cancelled.returncode == 0, cancelled.stderr
    assert time.monotonic() - began < 20
    assert (await bench.read(long))["state_type"] == "CANCELLED"
    missing = await ask("show", "no-such-run-at-all")
    assert missing.returncode == 1
    assert "no flow run with the name" in missing.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no process template, and no such measure")
async def test_an_idle_executor_with_four_slots_stays_under_two_hundred_mebibytes(bench: Bench):
    deployment = await bench.deploy(SLEEPER)
    machine = start_elsewhere(bench, slots=4)
    try:
        for _ in range(2):  # all slots have worked
            runs = [await bench.create(deployment, parameters={"seconds": 3}) for _ in range(4)]
            for run_id in runs:
                assert (await bench.reach(run_id))["state_type"] == "COMPLETED"
        root = psutil.Process(machine.pid)

        async def idle() -> list[psutil.Process]:
            family = [root, *root.children(recursive=True)]
            return family if len(family) == 7 else []  # role, process template, fork server, slots

        family = await eventually(idle, what="the run processes to be gone")
        shares = [round(process.memory_full_info().pss / 1024 / 1024, 1) for process in family]
        assert sum(shares) < 200, shares
    finally:
        machine.terminate()
        await asyncio.to_thread(machine.wait, 20)
