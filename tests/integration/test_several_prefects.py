"""Two processes of Prefect's API on one PostgreSQL, and its background services in a third, as deploy/ starts them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, aclosing, contextmanager
from pathlib import Path

import httpx
import pytest
import redis as redis_py
import yaml
from prefect.settings import PREFECT_API_URL, temporary_settings

from config.settings import CHECKOUT
from services.local.embedded_servers import claim_port
from services.prefect_api.client import connect
from services.prefect_api.events import Connected, state_changes
from tests.support.databases import postgresql
from tests.support.valkeys import OwnValkey, own_valkey
from tests.support.waiting import eventually, wait_until

OVERLAY = yaml.safe_load((CHECKOUT / "deploy" / "compose.prefect.yaml").read_text(encoding="utf-8"))
API, SERVICES = (OVERLAY["services"][name] for name in ("prefect-more", "prefect-services"))
START_SECONDS = 180


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, OwnValkey]]:
    """The addresses of the two API processes, and the Valkey through which they talk."""
    home = tmp_path_factory.mktemp("prefects")
    with ExitStack() as stack:
        database = stack.enter_context(postgresql())
        valkey = stack.enter_context(own_valkey(home))
        environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
            **_messages(valkey),
            "PYTHONPATH": str(CHECKOUT),
            "PREFECT_API_DATABASE_CONNECTION_URL": database.replace("+psycopg", "+asyncpg"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        }
        options = json.loads(API["command"][0].replace("${PUBLIC_HOST:-127.0.0.1}", "127.0.0.1"))
        urls = []
        for number in (1, 2):
            port = claim_port(0, "a free port")
            command = [*API["entrypoint"], json.dumps(options), "--host", "127.0.0.1", "--port", str(port)]
            stack.enter_context(_process(command, home / f"api-{number}", environ))
            urls.append(f"http://127.0.0.1:{port}/api")
            # The first of them migrates the database.
            wait_until(lambda url=urls[-1]: _healthy(url), within_seconds=START_SECONDS, what="Prefect answers")
        stack.enter_context(_process(SERVICES["entrypoint"], home / "services", environ))
        yield urls[0], urls[1], valkey


def _messages(valkey: OwnValkey) -> dict[str, str]:
    """What the overlay tells Prefect of its messages, for this Valkey."""
    told = {
        name: str(value) for name, value in OVERLAY["x-messages"].items() if "USER" not in name and "PASS" not in name
    }
    return told | {"PREFECT_REDIS_MESSAGING_HOST": "127.0.0.1", "PREFECT_REDIS_MESSAGING_PORT": str(valkey.port)}


@contextmanager
def _process(words: list[str], home: Path, environ: dict[str, str]) -> Iterator[None]:
    home.mkdir()
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *words[1:]],
            cwd=home,
            env={**environ, "PREFECT_HOME": str(home)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).is_success
    except httpx.HTTPError:
        return False


async def test_who_follows_one_api_process_hears_what_another_one_did(servers: tuple[str, str, OwnValkey]) -> None:
    first, second, _ = servers
    with temporary_settings({PREFECT_API_URL: second}):
        async with aclosing(state_changes()) as heard, connect(first) as api:
            assert isinstance(await anext(heard), Connected)
            flow = await api.request("POST", "/flows/", json={"name": "heard"})
            run = await api.request("POST", "/flow_runs/", json={"flow_id": flow["id"], "state": {"type": "SCHEDULED"}})
            async with asyncio.timeout(60):
                while (change := await anext(heard)) and getattr(change, "run_id", None) != run["id"]:
                    pass


async def test_the_background_services_run_once_and_beside_the_api(servers: tuple[str, str, OwnValkey]) -> None:
    first, _, valkey = servers
    async with connect(first) as api:
        flow = await api.request("POST", "/flows/", json={"name": "planned"})
        schedule = {"schedule": {"interval": 3600}, "active": True}
        body = {"name": "default", "flow_id": flow["id"], "entrypoint": "f.py:f", "schedules": [schedule]}
        deployment = await api.request("POST", "/deployments/", json=body)
        wanted = {"deployments": {"id": {"any_": [deployment["id"]]}}}

        async def planned() -> bool:
            return bool(await api.request("POST", "/flow_runs/count", json=wanted))

        await eventually(planned, within_seconds=120, what="the scheduler has planned runs")
    with redis_py.Redis(port=valkey.port, db=int(OVERLAY["x-messages"]["PREFECT_REDIS_MESSAGING_DB"])) as messages:
        groups = {group["name"]: group["consumers"] for group in messages.xinfo_groups("events")}
    assert groups[b"event-persister"] == 1
