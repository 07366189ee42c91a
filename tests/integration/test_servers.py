"""The servers of the test session are real and reachable through our own doors."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from httpcore import Origin
from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, temporary_settings

from events.errors import Refused, TransientError
from services.prefect_api.client import PrefectApi, connect
from services.store.connection import AsyncRedis
from tests.support.databases import postgresql
from tests.support.prefects import prefect_on


async def test_valkey_answers(redis: AsyncRedis) -> None:
    assert await redis.ping()


async def test_prefect_answers(prefect_url: str) -> None:
    async with connect() as api:
        assert api.url == prefect_url
        assert await api.request("GET", "/health") is True


def test_prefect_servers_that_start_at_once_on_an_empty_postgresql_all_come_up(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two", "three")]
    for folder in folders:
        folder.mkdir()

    def comes_up(folder: Path) -> bool:
        with prefect_on(database, folder):
            return True

    with postgresql() as database, ThreadPoolExecutor(len(folders)) as threads:
        assert all(threads.map(comes_up, folders))


async def test_transactions_of_the_prefect_server_wait_for_each_other(prefect_url: str) -> None:
    """Prefect's own command answers "database is locked" for nearly all (see `services.local.prefect_server`)."""
    async with connect() as api:
        flow = await api.request("POST", "/flows/", json={"name": "side-by-side"})
        body = {"name": "default", "flow_id": flow["id"], "entrypoint": "flows/none.py:none"}
        deployment = await api.request("POST", "/deployments/", json=body)
        answers = await asyncio.gather(*(_create(api, deployment["id"], 20) for _ in range(4)))
    assert {one["status"] for answer in answers for one in answer["results"]} == {"CREATED"}


async def test_answers_that_are_there_already_do_not_stop_the_prefect_server(prefect_url: str) -> None:
    """Prefect's own command stands still for a minute at a time then (see `services.local.sqlite_turns`)."""
    async with connect() as api:
        flow = await api.request("POST", "/flows/", json={"name": "answered-twice"})
        body = {"name": "default", "flow_id": flow["id"], "entrypoint": "flows/none.py:none"}
        deployment = await api.request("POST", "/deployments/", json=body)
        work = asyncio.gather(*(_answer_twice(api, deployment["id"], 10) for _ in range(12)))
        while not work.done():
            async with asyncio.timeout(20):
                await api.request("GET", "/health", once=True)
            await asyncio.sleep(0.1)
        assert await work == [10] * 12


async def _answer_twice(api: PrefectApi, deployment_id: str, times: int) -> int:
    refused = 0
    for _ in range(times):
        run = await api.request("POST", f"/deployments/{deployment_id}/create_flow_run", json={})
        for _ in range(2):
            try:
                await api.request("POST", f"/flow_runs/{run['id']}/input", json={"key": "answer", "value": "1"})
            except Refused:
                refused += 1
        await api.request("POST", "/flow_runs/filter", json={"limit": 20})
    return refused


async def test_a_client_that_has_lost_all_its_connections_gets_new_ones(prefect_url: str) -> None:
    """httpcore has been seen to keep connections taken for requests that were given up: none was left."""
    with temporary_settings(updates={PREFECT_API_REQUEST_TIMEOUT: 1}):
        async with connect() as api:
            transport: Any = api._client._client._transport
            pool = transport._pool
            pool._connections += [pool.create_connection(Origin(b"http", b"127.0.0.1", 1)) for _ in range(200)]
            with pytest.raises(TransientError):
                await api.request("GET", "/health", once=True)
            assert await api.request("GET", "/health", once=True) is True


async def _create(api: PrefectApi, deployment_id: str, count: int) -> dict[str, list[dict[str, str]]]:
    path = f"/deployments/{deployment_id}/create_flow_run/bulk"
    answer: dict[str, list[dict[str, str]]] = await api.request("POST", path, json=[{}] * count)
    return answer


async def test_the_prefect_server_does_not_read_every_paused_run_all_the_time(prefect_url: str) -> None:
    """With its own 5 seconds and 10,000 paused runs it does nothing else (see `services.local.embedded_servers`)."""
    async with connect() as api:
        settings = await api.request("GET", "/admin/settings")
    assert settings["server"]["services"]["pause_expirations"]["loop_seconds"] >= 60


@pytest.mark.slow
async def test_prefects_own_command_works_with_the_server_beside_us(prefect_url: str) -> None:
    """With a FastAPI that Prefect does not know, the server refuses most of what the command asks."""
    name = f"listed-{uuid4().hex[:6]}"
    async with connect() as api:
        flow = await api.request("POST", "/flows/", json={"name": name})
        body = {"name": "default", "flow_id": flow["id"], "entrypoint": "flows/none.py:none"}
        deployment = await api.request("POST", "/deployments/", json=body)
        run = await api.request("POST", f"/deployments/{deployment['id']}/create_flow_run", json={"name": f"{name}-1"})
    commands = {
        "deployment ls": name,
        f"deployment inspect {name}/default": deployment["id"],
        "deployment schedule ls " + f"{name}/default": "",
        "flow ls": name,
        "flow-run ls": f"{name}-1",
        f"flow-run inspect {run['id']}": f"{name}-1",
        f"flow-run cancel {run['id']}": run["id"],
        "work-pool ls": "",
        "variable ls": "",
        "automation ls": "",
    }
    told = await _prefect(list(commands))
    wrong = {
        command: (code, printed)
        for command, (code, printed) in told.items()
        if code != 0 or commands[command] not in printed.replace("\n", "")
    }
    assert not wrong


PREFECTS_COMMAND = """
import json, os, sys, tempfile
from prefect.cli import app

answers = {}
for command in json.loads(sys.argv[1]):
    with tempfile.TemporaryFile("w+") as printed:
        if os.fork() == 0:
            os.dup2(printed.fileno(), 1)
            os.dup2(printed.fileno(), 2)
            sys.argv[1:] = command.split()
            app()
            sys.exit(0)
        code = os.waitstatus_to_exitcode(os.wait()[1])
        printed.seek(0)
        answers[command] = (code, printed.read())
print(json.dumps(answers))
"""
"""Runs the command once for each list of words, in a child of one process that has imported it."""


async def _prefect(commands: list[str]) -> dict[str, tuple[int, str]]:
    """The exit code of each command, and what it prints in a terminal that is wide enough for a table."""
    environment = {**os.environ, "COLUMNS": "300", "PREFECT_CLI_PROMPT": "false", "PREFECT_CLI_COLORS": "false"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PREFECTS_COMMAND, json.dumps(commands), env=environment,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    printed, _ = await asyncio.wait_for(process.communicate(), 120)
    answers: dict[str, tuple[int, str]] = json.loads(printed)
    return answers
