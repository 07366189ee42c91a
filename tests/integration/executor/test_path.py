"""From "Scheduled" to the end of the flow, whoever made the run scheduled."""

import json
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest

from tests.integration.executor.conftest import Bench
from tests.support.waiting import eventually


async def test_a_run_made_by_anyone_is_executed_once_with_its_parameters_and_logs(bench: Bench):
    await bench.start()
    deployment = await bench.deploy(
        """
        from prefect import flow, get_run_logger

        @flow
        def main(who: str, times: int = 1, extra: dict | None = None):
            for number in range(times):
                get_run_logger().info("hello %s %s", who, number)
            print("not a log")
            return extra
        """
    )
    run = await bench.run(deployment, who="Ada", times=3, extra={"a": [1, None, "ü"]})
    assert run["state_type"] == "COMPLETED"
    assert run["run_count"] == 1
    assert await bench.states(run["id"]) == ["Scheduled", "Pending", "Running", "Completed"]
    logs = await bench.all_logs(run["id"])
    assert [line for line in logs if line.startswith("hello")] == ["hello Ada 0", "hello Ada 1", "hello Ada 2"]
    assert logs[-1].startswith("Finished in state Completed")


async def test_a_run_that_the_websocket_missed_is_found_by_the_poll(bench: Bench):
    deployment = await bench.deploy("from prefect import flow\n\n@flow\ndef main(): pass\n")
    run_id = await bench.create(deployment)
    await bench.start()
    assert (await bench.reach(run_id))["state_type"] == "COMPLETED"


async def test_a_run_of_the_future_starts_at_its_time_and_not_with_a_poll(bench: Bench):
    await bench.start(poll_seconds=60)
    deployment = await bench.deploy("from prefect import flow\n\n@flow\ndef main(): pass\n")
    moment = datetime.now(UTC) + timedelta(seconds=3)
    state = {"type": "SCHEDULED", "state_details": {"scheduled_time": moment.isoformat()}}
    run = await bench.reach(await bench.create(deployment, state=state))
    assert run["state_type"] == "COMPLETED"
    late = datetime.fromisoformat(run["start_time"]) - moment
    assert timedelta(0) <= late < timedelta(seconds=15)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [{"interval": 3}, {"cron": "* * * * * */4"}])
async def test_the_runs_of_a_schedule_start_at_their_time_and_not_with_a_poll(bench: Bench, schedule: dict):
    deployment = await bench.deploy(
        "from prefect import flow\n\n@flow\ndef main(): pass\n", schedules=[{"schedule": schedule, "active": True}]
    )
    try:
        await eventually(lambda: runs_of(bench, deployment), within_seconds=90, what="Prefect to plan the runs")
        await bench.start(poll_seconds=60)
        ready = datetime.now(UTC)

        async def three() -> list[dict]:
            ended = await runs_of(bench, deployment, "COMPLETED")
            planned = [run for run in ended if datetime.fromisoformat(run["expected_start_time"]) > ready]
            return planned if len(planned) >= 3 else []

        for run in await eventually(three, what="three runs at their time"):
            late = datetime.fromisoformat(run["start_time"]) - datetime.fromisoformat(run["expected_start_time"])
            assert timedelta(0) <= late < timedelta(seconds=15)
    finally:
        await bench.api.request("DELETE", f"/deployments/{deployment}")


async def runs_of(bench: Bench, deployment: str, state: str = "SCHEDULED") -> list[dict]:
    body = {"deployments": {"id": {"any_": [deployment]}}, "flow_runs": {"state": {"type": {"any_": [state]}}}}
    return await bench.api.request("POST", "/flow_runs/filter", json=body)


async def test_a_failed_run_is_executed_again_when_the_ui_retries_it(bench: Bench):
    await bench.start()
    deployment = await bench.deploy(
        """
        from pathlib import Path
        from prefect import flow

        @flow
        def main(mark: str):
            if not Path(mark).exists():
                Path(mark).touch()
                raise ValueError("not yet")
        """
    )
    run = await bench.run(deployment, mark=str(bench.folder / "mark"))
    assert run["state_type"] == "FAILED"
    assert "not yet" in run["state"]["message"]
    state = {"type": "SCHEDULED", "name": "AwaitingRetry"}
    await bench.api.request("POST", f"/flow_runs/{run['id']}/set_state", json={"state": state, "force": True})
    assert (await bench.reach(run["id"], "COMPLETED"))["run_count"] == 2


async def test_runs_beyond_a_deployments_limit_are_cancelled_where_it_says_so(bench: Bench):
    await bench.start()
    deployment = await bench.deploy(
        """
        import time
        from prefect import flow

        @flow
        def main():
            time.sleep(1.5)
        """,
        concurrency_limit=1,
        concurrency_options={"collision_strategy": "CANCEL_NEW"},
    )
    first = await bench.create(deployment)
    await bench.reach(first, "RUNNING")
    second = await bench.run(deployment)
    assert second["state_type"] == "CANCELLED"
    assert (await bench.reach(first))["state_type"] == "COMPLETED"


async def test_a_saved_file_counts_from_the_next_run_on_and_a_running_flow_finishes_on_the_old_code(bench: Bench):
    executor = await bench.start(slots=2)
    source = """
        import time
        from pathlib import Path
        from prefect import flow
        import helping_{name}

        @flow
        def main(out: str, seconds: float = 0):
            time.sleep(seconds)
            from_file = {version}
            Path(out).write_text(f"{{from_file}} {{helping_{name}.VERSION}}")
        """
    name = bench.name.replace("-", "_")
    helper, file = f"helping_{name}.py", f"changing_{name}.py"
    bench.write(helper, "VERSION = 1\n")
    deployment = await bench.deploy(source.format(name=name, version=1), file=file)
    old = await bench.create(deployment, parameters={"out": str(bench.folder / "old"), "seconds": 2})
    await bench.reach(old, "RUNNING")
    slots = {slot.process.pid for slot in executor._pool.slots.by_pid.values()}
    bench.write(helper, "VERSION = 2\n")
    bench.write(file, source.format(name=name, version=2))
    assert (await bench.run(deployment, out=str(bench.folder / "new")))["state_type"] == "COMPLETED"
    assert (await bench.reach(old))["state_type"] == "COMPLETED"
    assert (bench.folder / "new").read_text() == "2 2"
    assert (bench.folder / "old").read_text() == "1 1"
    assert slots <= set(executor._pool.slots.by_pid)


async def test_a_run_inherits_no_thread_and_no_connection_to_redis(bench: Bench):
    await bench.start(slots=1)
    deployment = await bench.deploy(
        """
        import asyncio, json, os, threading
        import psutil
        from prefect import flow

        @flow
        def main(out: str):
            process = psutil.Process()
            remote = [end.raddr.port for end in process.net_connections("tcp") if end.raddr]
            with open(out, "w") as file:
                json.dump([remote, [thread.name for thread in threading.enumerate() if not thread.daemon]], file)
        """
    )
    out = bench.folder / "found"
    assert (await bench.run(deployment, out=str(out)))["state_type"] == "COMPLETED"
    remote, threads = json.loads(out.read_text())
    assert urlsplit(bench.redis_url).port not in remote
    assert threads == ["MainThread"]


async def test_two_executors_execute_each_run_once(bench: Bench):
    await bench.start()
    await bench.start()
    deployment = await bench.deploy(
        """
        import os
        from prefect import flow

        @flow
        def main(file: str, number: int):
            with open(file, "a") as out:
                out.write(f"{number}\\n")
        """
    )
    file = bench.folder / "out"
    runs = [await bench.create(deployment, parameters={"file": str(file), "number": number}) for number in range(12)]
    for run_id in runs:
        assert (await bench.reach(run_id))["state_type"] == "COMPLETED"
    assert sorted(int(line) for line in file.read_text().split()) == list(range(12))


async def test_deployments_with_a_work_pool_of_another_executor_or_without_code_here_are_left_alone(bench: Bench):
    executor = await bench.start()
    source = "from prefect import flow\n\n@flow\ndef main(): pass\n"
    ours = await bench.deploy(source, flow_name=f"{bench.name}-ours")
    pinned = await bench.deploy(source, flow_name=f"{bench.name}-pinned", job_variables={"sluice_executor": "other"})
    elsewhere = await bench.deploy(source, flow_name=f"{bench.name}-elsewhere", path="/nowhere/at/all")
    pool = f"pool-{bench.name}"
    await bench.api.request("POST", "/work_pools/", json={"name": pool, "type": "process"})
    pooled = await bench.deploy(source, flow_name=f"{bench.name}-pooled", work_pool_name=pool)
    left = [await bench.create(deployment) for deployment in (pinned, elsewhere, pooled)]
    assert (await bench.run(ours))["state_type"] == "COMPLETED"
    assert {(await bench.read(run_id))["state_type"] for run_id in left} == {"SCHEDULED"}
    assert [name for name in executor.status()["deployments"] if bench.name in name] == [f"{bench.name}-ours/default"]


async def test_a_deployment_is_shown_as_ready_while_an_executor_serves_it(bench: Bench):
    deployment = await bench.deploy("from prefect import flow\n\n@flow\ndef main(): pass\n")
    await bench.start()

    async def ready() -> bool:
        return (await bench.api.request("GET", f"/deployments/{deployment}"))["status"] == "READY"

    await eventually(ready)


async def test_a_flow_imports_from_its_project_wherever_it_goes(bench: Bench):
    await bench.start(slots=1)
    name = bench.name.replace("-", "_")
    bench.write(f"late_{name}.py", "VALUE = 42\n")
    deployment = await bench.deploy(
        f"""
        import os
        from pathlib import Path
        from prefect import flow

        @flow
        def main(out: str):
            os.chdir("/")
            from late_{name} import VALUE

            Path(out).write_text(str(VALUE))
        """,
        file=f"job_{name}.py",
        entrypoint=f"job_{name}.main",  # by its module: Prefect then keeps no folder of the file's on the import path
    )
    out = bench.folder / "out"
    run = await bench.run(deployment, out=str(out))
    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    assert out.read_text() == "42"


@pytest.mark.parametrize("mode", ["fork", "subprocess"])
async def test_names_of_sluice_belong_to_the_users_project_in_its_flows(bench: Bench, mode: str):
    await bench.start(mode=mode)
    for package in ("config", "events", "services", "flows"):
        bench.write(f"{package}/__init__.py", f"WHOSE = 'the user, {package}'\n")
    bench.write("flows/settings.py", "VALUE = 41 + 1\n")
    deployment = await bench.deploy(
        """
        import json
        import subprocess
        import sys
        from pathlib import Path

        import config
        import events
        import services
        from flows.settings import VALUE
        from prefect import flow

        @flow
        def main(out: str):
            import sluice
            from flows import WHOSE

            nested = subprocess.run([sys.executable, "-c", "import sluice, sys; print(sluice.__name__)"],
                                    capture_output=True, text=True, check=True).stdout.strip()
            Path(out).write_text(json.dumps([config.WHOSE, events.WHOSE, services.WHOSE, WHOSE, VALUE,
                                             sluice.__name__, nested]))
        """,
        file="flows/job.py",
    )
    out = bench.folder / "out.json"
    run = await bench.run(deployment, out=str(out))
    assert run["state_type"] == "COMPLETED", run["state"]["message"]
    assert json.loads(out.read_text()) == [
        "the user, config",
        "the user, events",
        "the user, services",
        "the user, flows",
        42,
        "sluice",
        "sluice",
    ]
