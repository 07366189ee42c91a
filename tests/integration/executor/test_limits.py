"""Runs and tasks that a concurrency limit holds back, on a server that has them ask again after a second."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
import pytest_asyncio

from services.prefect_api.client import connect
from tests.integration.executor.conftest import Bench, start_elsewhere
from tests.support.prefects import own_prefect

# Prefect itself lets 30 s pass, however early the limit frees.
AGAIN_SECONDS = 1

TAGGED = """
import json, time
from pathlib import Path
from prefect import flow, task

@task(tags=[{tag!r}])
def alone(out: str):
    began = time.time()
    time.sleep(0.5)
    with open(out, "a") as file:
        file.write(json.dumps([began, time.time()]) + "\\n")

@flow
def main(out: str):
    futures = [alone.submit(out) for _ in range(2)]
    for future in futures:
        future.result()
"""


@pytest.fixture(scope="module")
def quick_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    environment = {
        "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": str(AGAIN_SECONDS),
        "PREFECT_SERVER_TASKS_TAG_CONCURRENCY_SLOT_WAIT_SECONDS": str(AGAIN_SECONDS),
    }
    with own_prefect(tmp_path_factory.mktemp("quick"), environment) as url:
        yield url


@pytest_asyncio.fixture
async def limited(quick_url: str, bench: Bench) -> AsyncIterator[Bench]:
    """A bench at that server, with an executor of four slots whose poll is no help."""
    async with connect(quick_url) as api:
        limited = Bench(api=api, folder=bench.folder, redis_url=bench.redis_url, home=bench.home)
        machine = start_elsewhere(limited, slots=4, poll_seconds=600)
        yield limited
        machine.terminate()
        await asyncio.to_thread(machine.wait, 20)


async def test_runs_beyond_a_deployments_limit_run_one_after_the_other(limited: Bench):
    deployment = await limited.deploy(
        "import time\nfrom prefect import flow\n@flow\ndef main(): time.sleep(1.5)\n",
        concurrency_limit=1,
        concurrency_options={"collision_strategy": "ENQUEUE"},
    )
    runs = [await limited.create(deployment) for _ in range(3)]
    ended = [await limited.reach(run_id, within_seconds=90) for run_id in runs]
    assert [run["state_type"] for run in ended] == ["COMPLETED"] * 3
    assert [run["run_count"] for run in ended] == [1] * 3
    spans = sorted(
        (datetime.fromisoformat(run["start_time"]), datetime.fromisoformat(run["end_time"])) for run in ended
    )
    for (_, free), (began, _) in pairwise(spans):
        assert timedelta(0) <= began - free < timedelta(seconds=AGAIN_SECONDS + 10)
    names = [await limited.states(run_id) for run_id in runs]
    assert sum("AwaitingConcurrencySlot" in found for found in names) == 2


async def test_tasks_with_a_limited_tag_run_one_after_the_other_whosever_runs_they_are(limited: Bench):
    tag = f"only-one-{limited.name}"
    await limited.api.request("POST", "/concurrency_limits/", json={"tag": tag, "concurrency_limit": 1})
    deployment = await limited.deploy(TAGGED.format(tag=tag))
    out = limited.folder / "spans"
    runs = [await limited.create(deployment, parameters={"out": str(out)}) for _ in range(2)]
    for run_id in runs:
        assert (await limited.reach(run_id, within_seconds=90))["state_type"] == "COMPLETED"
    spans = sorted(read_spans(out))
    assert len(spans) == 4
    for (_, free), (began, _) in pairwise(spans):
        assert began >= free


def read_spans(file: Path) -> list[tuple[float, float]]:
    return [tuple(json.loads(line)) for line in file.read_text().splitlines()]
