"""The executor runs what `sluice deploy` registered, and nothing else unless it is named."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from services.deployments.declared import read_declarations
from services.deployments.deploy import carry_out, plan_deployments
from services.executor.executor import Executor
from services.prefect_api.deployments import work_pools
from services.prefect_api.run_calls import CLAIMED
from services.store.connection import AsyncRedis
from services.store.runs.registered_files import KEY
from tests.integration.executor.conftest import Bench
from tests.support.ending import end
from tests.support.waiting import eventually

FLOW = """
from prefect import flow

DEPLOYMENT = {{"executor": "{executor}"}}


@flow(name="{name}")
def main() -> str:
    return "own"
"""


async def deployed(bench: Bench, redis: AsyncRedis) -> str:
    """The name of a flow of the project that `sluice deploy` has registered."""
    name = f"own-{uuid4().hex[:8]}"
    bench.write("flows/own.py", FLOW.format(name=name, executor=bench.name))
    declarations = read_declarations(bench.folder, environment="development")
    plan = await plan_deployments(bench.api, redis, declarations)
    await carry_out(bench.api, redis, plan)
    return name


@contextmanager
def worker(pool: str, folder: Path) -> Iterator[None]:
    """Prefect's own worker of a process work pool, which it makes."""
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"]
    with (folder / "worker.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        yield
    finally:
        end(process)


async def takes(executor: Executor, *names: str) -> None:
    async def probe() -> bool:
        return executor.status()["deployments"] == sorted(f"{name}/default" for name in names)

    await eventually(probe, what=f"the executor to take {names}")


async def test_tags_and_labels_make_no_deployment_the_projects_own(bench: Bench, redis: AsyncRedis) -> None:
    own = await deployed(bench, redis)
    mine = await bench.api.request("GET", f"/deployments/name/{own}/default")
    marker = bench.folder / "foreign-code-ran"
    foreign = await bench.deploy(
        f"from pathlib import Path\nfrom prefect import flow\n@flow\ndef main(): Path({str(marker)!r}).touch()\n",
        tags=["sluice"],
        labels=mine["labels"],
    )
    pulled = await bench.deploy(
        "from prefect import flow\n@flow\ndef main(): ...\n",
        tags=["sluice"],
        pull_steps=[{"prefect.deployments.steps.run_shell_script": {"script": f"touch {marker}"}}],
    )
    executor = await bench.start(deployments=())
    runs = [await bench.create(deployment) for deployment in (foreign, pulled)]
    await takes(executor, own)
    assert (await bench.run(mine["id"]))["state_type"] == "COMPLETED"
    await bench.api.request("GET", "/health")
    assert [(await bench.read(run))["state_type"] for run in runs] == ["SCHEDULED", "SCHEDULED"]
    assert not await asyncio.to_thread(Path.exists, marker)


async def test_a_flow_that_names_a_process_work_pool_is_run_by_its_worker(
    bench: Bench, redis: AsyncRedis, tmp_path: Path
) -> None:
    pool = f"pool-{uuid4().hex[:8]}"
    bench.write("tasks/words.py", "WORD = 'pooled'\n")
    bench.write(
        "flows/area/pooled.py",
        f"""
        import os
        from pathlib import Path
        from prefect import flow
        from tasks.words import WORD

        DEPLOYMENT = {{"work_pool": "{pool}", "job_variables": {{"env": {{"GIVEN": "here"}}}}}}

        @flow(name="{pool}")
        def main() -> None:
            Path("ran.txt").write_text(f"{{WORD}} {{os.environ['GIVEN']}}")
        """,
    )
    with worker(pool, tmp_path):

        async def made() -> bool:
            return pool in await work_pools(bench.api)

        await eventually(made, what="the worker to make its work pool")
        own = await deployed(bench, redis)
        executor = await bench.start(deployments=("*",))
        await takes(executor, own)
        found = await bench.api.request("GET", f"/deployments/name/{pool}/default")
        run = await bench.run(found["id"])
        assert run["state_type"] == "COMPLETED", run["state"]["message"]
        states = await bench.api.request("GET", "/flow_run_states/", params={"flow_run_id": run["id"]})
        assert not any((state["message"] or "").startswith(CLAIMED) for state in states)
        assert (bench.folder / "ran.txt").read_text() == "pooled here"


async def test_a_foreign_deployment_is_run_when_it_is_named(bench: Bench, redis: AsyncRedis) -> None:
    own = await deployed(bench, redis)
    foreign = await bench.deploy("from prefect import flow\n@flow\ndef main(): ...\n", flow_name="foreign-one")
    executor = await bench.start(deployments=("foreign-*/*",))
    await takes(executor, "foreign-one", own)
    assert (await bench.run(foreign))["state_type"] == "COMPLETED"


async def test_a_registered_deployment_whose_code_is_changed_is_left_alone(bench: Bench, redis: AsyncRedis) -> None:
    own = await deployed(bench, redis)
    mine = (await bench.api.request("GET", f"/deployments/name/{own}/default"))["id"]
    executor = await bench.start(deployments=())
    await takes(executor, own)
    bench.write("flows/evil.py", "from prefect import flow\n@flow\ndef main(): ...\n")
    await bench.api.request("PATCH", f"/deployments/{mine}", json={"entrypoint": "flows/evil.py:main"})
    await takes(executor)


async def test_what_was_registered_is_known_although_redis_has_lost_everything(bench: Bench, redis: AsyncRedis) -> None:
    own = await deployed(bench, redis)
    executor = await bench.start(deployments=())
    await takes(executor, own)
    await redis.flushall()

    async def restored() -> bool:
        return bool(await redis.exists(KEY))

    await eventually(restored, what="the record to be written again")
    await takes(executor, own)
    await redis.hdel(KEY, *(field for field in await redis.hkeys(KEY) if field != b"written"))
    await takes(executor)
