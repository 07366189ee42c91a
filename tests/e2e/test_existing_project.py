"""docs/existing-project.md: a Prefect server on PostgreSQL with a password, a process pool, a served flow."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from config.settings import CHECKOUT
from services.local.embedded_servers import claim_port, start_prefect
from tests.support.databases import postgresql
from tests.support.ending import end
from tests.support.installation import Installation
from tests.support.valkeys import own_valkey
from tests.support.waiting import wait_until

AUTH = "ada:s3cret-of-the-server"
FLOW = "from prefect import flow\n\n@flow(name={name!r})\ndef main(order: int) -> int:\n    return order\n"
SERVE = FLOW + "\nif __name__ == '__main__':\n    main.serve(name='own')\n"
RULE = "  - {{name: to-{1}, on: order.created, run: {0}, parameters: {{order: '{{{{ event.data.order }}}}'}}}}\n"
DEPLOYMENTS = ("etl/default", "served/own", "pooled/own")


def documented() -> list[str]:
    """The commands of the page's section on servers of one's own, after those that export their addresses."""
    text = (CHECKOUT / "docs" / "existing-project.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"## With your own servers\n\n```console\n(.*?)```", text, re.DOTALL)
    commands = [line.removeprefix("$ ") for line in block.splitlines()]
    assert commands[0].startswith("export PREFECT_API_URL=")
    assert "PREFECT_API_AUTH_STRING=" in commands[0]
    assert commands[1].startswith("export SLUICE_REDIS_URL=")
    return commands[2:]


@pytest.fixture
def prefect(tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of the server that is there already, with the deployments that others made on it."""
    with postgresql() as database:
        server, url = start_prefect(
            tmp_path / "prefect",
            claim_port(0, "a free port"),
            log_file=tmp_path / "prefect.log",
            auth_string=AUTH,
            extra_env={
                "PREFECT_API_DATABASE_CONNECTION_URL": database.replace("+psycopg", "+asyncpg"),
                "PREFECT_API_DATABASE_MIGRATE_ON_START": "true",
            },
        )
        try:
            with httpx.Client(base_url=url, auth=tuple(AUTH.split(":")), timeout=60) as client:
                yield client
        finally:
            server.stop()


def post(prefect: httpx.Client, path: str, body: dict[str, Any]) -> Any:
    return prefect.post(path, json=body).raise_for_status().json()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_project_with_servers_of_its_own_gets_events_and_keeps_its_pools_and_served_flows(
    prefect: httpx.Client, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    (repository / "flows").mkdir(parents=True)
    (repository / "flows" / "etl.py").write_text(FLOW.format(name="etl"))
    (repository / "pooled.py").write_text(FLOW.format(name="pooled"))
    (repository / "served.py").write_text(SERVE.format(name="served"))
    url = str(prefect.base_url).rstrip("/")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", "PREFECT_"))}
    theirs = {**kept, "PREFECT_API_URL": url, "PREFECT_API_AUTH_STRING": AUTH, "PREFECT_HOME": str(tmp_path / "home")}

    post(prefect, "/work_pools/", {"name": "machines", "type": "process"})
    flow = post(prefect, "/flows/", {"name": "pooled"})["id"]
    pooled = {"name": "own", "flow_id": flow, "path": str(repository), "entrypoint": "pooled.py:main"}
    post(prefect, "/deployments/", {**pooled, "work_pool_name": "machines"})

    with ExitStack() as stack:
        valkey = stack.enter_context(own_valkey(tmp_path / "valkey"))
        for words in (["served.py"], ["-m", "prefect", "worker", "start", "--pool", "machines", "--type", "process"]):
            process = subprocess.Popen([sys.executable, *words], cwd=repository, env=theirs, start_new_session=True)
            stack.callback(end, process)

        ours = {**theirs, "SLUICE_REDIS_URL": valkey.url, "PYTHONPATH": str(CHECKOUT)}
        sluice = [sys.executable, "-m", "services.cli"]
        subprocess.run([*sluice, "init"], cwd=repository, env=ours, check=True)
        (repository / "sluice.yaml").write_text(
            "name: shop\nrules:\n" + "".join(RULE.format(name, name.partition("/")[0]) for name in DEPLOYMENTS)
        )
        wait_until(
            lambda: prefect.get("/deployments/name/served/own").status_code == httpx.codes.OK, what="the served flow"
        )
        before = {name: prefect.get(f"/deployments/name/{name}").json() for name in DEPLOYMENTS[1:]}

        check, up = documented()
        assert (check, up) == ("sluice check", "sluice up")
        checked = subprocess.run(
            [*sluice, "check"], cwd=repository, env=ours, capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stderr
        own = {name: ours[name] for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "SLUICE_REDIS_URL")}
        manager = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        own |= {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "600000"}
        with Installation(repository / ".sluice", env=own, config=repository / "sluice.yaml") as installation:
            assert "channel sluice.events.shop" in installation.output.read_text()
            event = {"specversion": "1.0", "id": "1", "source": "shop", "type": "order.created", "data": {"order": 42}}
            installation.redis.publish("sluice.events", json.dumps({**event, "id": "somebody else's"}))
            installation.redis.publish("sluice.events.shop", json.dumps(event))
            for name in DEPLOYMENTS:
                wait_until(lambda name=name: completed(installation, name), what=f"the run of {name}")
                assert len(installation.runs(name.partition("/")[0])) == 1
            assert installation.status["project"] == "shop"
            assert {"READY=1\nSTATUS=ready", "WATCHDOG=1"} <= told(manager)
            end_as_systemd_does(installation)
            assert "STOPPING=1\nSTATUS=stopping" in told(manager)
        after = {name: prefect.get(f"/deployments/name/{name}").json() for name in before}
        for name, deployment in before.items():
            for field in ("path", "entrypoint", "tags", "labels", "work_pool_name", "version"):
                assert after[name][field] == deployment[field], (name, field)


def completed(installation: Installation, name: str) -> bool:
    return [run["state_type"] for run in installation.runs(name.partition("/")[0])] == ["COMPLETED"]


def told(manager: socket.socket) -> set[str]:
    found = set()
    with suppress(BlockingIOError):
        while True:
            found.add(manager.recv(100).decode())
    return found


def end_as_systemd_does(installation: Installation) -> None:
    """Where a unit does not say otherwise: SIGTERM to every process of it at once."""
    head = psutil.Process(installation.process.pid)
    family = [head, *head.children(recursive=True)]
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    assert installation.process.wait(30) == 0
    assert not psutil.wait_procs(family, timeout=0)[1]
    said = installation.output.read_text()
    assert said.rstrip().endswith("Stopped.")
    assert "Traceback" not in said
