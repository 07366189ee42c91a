"""What a run need not ask the server, because the executor has: and that it is right whatever the server answers."""

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from config.settings import CHECKOUT
from services.prefect_api.client import connect
from tests.integration.executor.conftest import Bench, start_elsewhere
from tests.support.prefects import own_prefect
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

FLOW = "from prefect import flow\n\n@flow\ndef main(): return 'a result'\n"
# A run process without an executor; the last argument is what it is told, and for how many seconds that is known.
RUN_PROCESS = """
import json, os, sys, time
from pathlib import Path
from services.executor.messages import ExecuteRun
from services.executor.process.flow_run_process import FlowRunProcess, Prepared, finish
from services.executor.process.suspension import Suspension
from services.prefect_api.server_options import ServerOptions

run_id, shelf, told = sys.argv[1:]
told = json.loads(told)
options = ServerOptions(at=time.monotonic() - told.pop("age_seconds"), **told)
FlowRunProcess(
    ExecuteRun(run_id, "a test", options=options), lambda _: None,
    environment=dict(os.environ), shelf=Path(shelf), suspension=Suspension(run_id),
    prepared=Prepared(os.environ),
).run()
finish(0)
"""
KNOWN: dict[str, Any] = {"csrf": False, "result_storage": None, "age_seconds": 0}


@pytest.fixture(scope="module")
def strict_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of this module's own that wants CSRF tokens."""
    environment = {"PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true"}
    with own_prefect(tmp_path_factory.mktemp("strict"), environment) as url:
        yield url


@pytest_asyncio.fixture
async def strict(strict_url: str, bench: Bench) -> AsyncIterator[Bench]:
    """A bench at that server."""
    async with connect(strict_url) as api:
        yield Bench(api=api, folder=bench.folder, redis_url=bench.redis_url, home=bench.home)


async def asked_by_a_run_process(bench: Bench, **told: Any) -> list[str]:
    """What the run process of a run asks the server, in order, until the run has ended well."""
    run_id = await bench.create(await bench.deploy(FLOW))
    async with Proxy(urlsplit(bench.api.url).port or 0) as proxy:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            RUN_PROCESS,
            run_id,
            str(bench.home / "shelf"),
            json.dumps({**KNOWN, **told}),
            cwd=CHECKOUT,
            env={
                **os.environ,
                "PREFECT_API_URL": f"http://127.0.0.1:{proxy.port}/api",
                "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false",  # as in an executor
            },
        )
        assert await process.wait() == 0
    assert (await bench.read(run_id))["state_type"] == "COMPLETED"
    return [line.replace(run_id, "ID") for line in requests(proxy)]


def requests(proxy: Proxy) -> list[str]:
    lines = re.findall(rb"^(GET|POST|PATCH|PUT) /api(/[\w/-]*)\S* HTTP/1.1\r$", b"\n".join(proxy.heard), re.MULTILINE)
    return [b" ".join(line).decode() for line in lines]


READ, PROPOSE, TOKEN, STORAGE = (
    "GET /flow_runs/ID",
    "POST /flow_runs/ID/set_state",
    "GET /csrf-token",
    "GET /admin/storage",
)


async def test_what_the_executor_has_just_asked_is_not_asked_again(bench: Bench):
    asked = await asked_by_a_run_process(bench)
    assert asked[:2] == [READ, PROPOSE]
    assert STORAGE not in asked


async def test_what_the_executor_asked_too_long_ago_is_asked_again(bench: Bench):
    asked = await asked_by_a_run_process(bench, age_seconds=20)
    assert asked[:3] == [READ, TOKEN, PROPOSE]
    assert asked.count(STORAGE) == 2


async def test_a_server_that_wants_tokens_is_asked_for_one_first(strict: Bench):
    asked = await asked_by_a_run_process(strict, csrf=True)
    assert asked[:3] == [READ, TOKEN, PROPOSE]


async def test_a_server_that_wants_tokens_since_a_moment_is_asked_for_one_then(strict: Bench):
    asked = await asked_by_a_run_process(strict, csrf=False)
    assert asked[:4] == [READ, PROPOSE, TOKEN, PROPOSE]


@pytest.mark.parametrize("once", [True, False])
async def test_the_executors_own_client_begins_to_ask_for_tokens_too(strict: Bench, once: bool):
    strict.api._client._client.enable_csrf_support = False  # type: ignore[attr-defined]  # as once it was told that there are none
    assert isinstance(await strict.api.request("POST", "/flows/filter", once=once, json={"limit": 1}), list)


async def test_the_runs_of_an_executor_are_told_what_it_has_asked(bench: Bench):
    deployment = await bench.deploy(FLOW)
    async with Proxy(urlsplit(bench.api.url).port or 0) as proxy:
        machine = start_elsewhere(bench, url=f"http://127.0.0.1:{proxy.port}/api", slots=2)
        try:
            began = time.monotonic()
            for run_id in [await bench.create(deployment) for _ in range(8)]:
                assert (await bench.reach(run_id, within_seconds=60))["state_type"] == "COMPLETED"
            took = time.monotonic() - began
        finally:
            machine.terminate()
            await asyncio.to_thread(machine.wait, 20)
    # The executor itself asks every five seconds; each of the eight runs would twice.
    assert 0 < requests(proxy).count(STORAGE) < 16
    assert requests(proxy).count(STORAGE) <= took / 5 + 3


@pytest.mark.slow
async def test_a_default_storage_of_the_server_counts_from_when_it_is_set_until_it_is_taken_back(strict: Bench):
    deployment = await strict.deploy(FLOW)
    shelf = strict.folder / "results"
    block = await local_storage(strict, shelf)
    machine = start_elsewhere(strict)
    try:

        async def stored() -> bool:
            before = files(shelf)
            run_id = await strict.create(deployment)
            run = await strict.reach(run_id, within_seconds=60)
            assert run["state_type"] == "COMPLETED", run["state"]["message"]
            return files(shelf) > before

        async def not_stored() -> bool:
            return not await stored()

        assert await not_stored()
        await strict.api.request("PUT", "/admin/storage", json={"default_result_storage_block_id": block})
        await eventually(stored, what="a result in the storage")
        await strict.api.request("DELETE", "/admin/storage")
        await eventually(not_stored, what="a run without a stored result")
    finally:
        machine.terminate()
        await asyncio.to_thread(machine.wait, 20)


def files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


async def local_storage(bench: Bench, folder: Path) -> str:
    """The id of a block on the server that stores into the folder."""
    kind = await bench.api.request("GET", "/block_types/slug/local-file-system")
    (schema, *_) = await bench.api.request(
        "POST", "/block_schemas/filter", json={"block_schemas": {"block_type_id": {"any_": [kind["id"]]}}}
    )
    body = {
        "name": f"results-{bench.name}",
        "data": {"basepath": str(folder)},
        "block_type_id": kind["id"],
        "block_schema_id": schema["id"],
    }
    return str((await bench.api.request("POST", "/block_documents/", json=body))["id"])
