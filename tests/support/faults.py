"""A whole installation of real processes that can be hurt: roles, Valkey, Prefect server, and the network between."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import httpx

from config.canary import canary_stream
from config.project import load_project
from config.settings import JournalSettings, RedisSettings
from services.local.embedded_servers import Server, claim_port
from services.store.access.acl import acl_users
from services.store.connection import AsyncRedis, connect
from services.store.events.journal import Journal
from services.store.runs.created_runs import ACTIVE
from services.store.runs.dispatch_queues import DispatchQueues
from tests.support import faults_answers
from tests.support.confirmed import unrepeated
from tests.support.faults_roles import Role
from tests.support.prefects import start_migrated
from tests.support.proxy import Proxy
from tests.support.valkeys import OwnValkey, refused, write_users
from tests.support.waiting import eventually

REFUSED = ("NOPERM", "NoPermission", "does not let this user", "no permissions")

CASE_FLOW = Path(__file__).parent.parent / "integration/waits/case_flow.py"
FLOW = "fault"
DEPLOYMENTS = ("every", "third", "file")
"""Whose runs nobody executes."""

EXECUTED = "executed"
EXECUTED_FLOW = """
from pathlib import Path

from prefect import flow

@flow(name="fault")
def mark(n: int) -> None:
    with Path({marks!r}, str(n)).open("a") as file:
        file.write("executed\\n")
"""

PROJECT = """
sources:
  files:
    inbox: {path: inbox, include: ["*.txt"], on_success: keep, on_failure: keep, rescan_seconds: 2}
  redis:
    events: {channel: sluice.events, stream: sluice.events}
    plain: {channel: "plain.*", pattern: true, stream: test:plain, type: fault.happened}
    list: {list: test:list, type: fault.happened}
  http:
    hook: {type: fault.happened}
rules:
  - {name: every, on: fault.*, run: fault/every, parameters: {n: "{{ event.data.n }}"}}
  - {name: third, on: fault.*, when: event.data.n % 3 == 0, run: fault/third, parameters: {n: "{{ event.data.n }}"}}
  - {name: tenth, on: fault.*, when: event.data.n % 10 == 0, run: fault/executed, parameters: {n: "{{ event.data.n }}"}}
  - {name: asking, on: fault.*, when: event.data.n % 10 == 7, run: fault/asks, parameters: {n: "{{ event.data.n }}"}}
  - {name: file, on: sluice.file.arrived, run: fault/file, parameters: {path: "{{ event.data.path }}"}}
"""

ROLES = {"listeners": 2, "router": 2, "resumer": 1, "api": 1, "executor": 2}


class Installation:
    """Starts everything in ``directory``; `hurt` does one thing to it that a random generator chooses.

    The roles reach Valkey and Prefect only through the proxies; ``redis`` and ``prefect`` here go around them. Each
    role is the user of Redis that `sluice acl` makes for it.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = AsyncExitStack()
        self._prefect_port = claim_port(0, "a free port")
        self._prefect_server: Server | None = None
        self.valkey = OwnValkey(directory / "valkey", RedisSettings(fsync="always"))
        self.inbox = directory / "inbox"
        self.marks = directory / "marks"
        """A file for each number whose run was executed."""
        self.answers = directory / "answers"
        """A file for each number whose run waits: the answers that it received."""
        self.processes = directory / "processes"
        """A line for each process that began a run that waits, with those that still executed it."""
        self.api_port = claim_port(0, "a free port")
        self.faults: Counter[str] = Counter()
        self.older: frozenset[str] = frozenset()
        """Positions in the journal, and ids of dead letters, that were there before."""
        self._one_at_valkey = asyncio.Lock()
        self._roles: list[Role] = []

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        self.inbox.mkdir(parents=True)
        self.marks.mkdir()
        self.answers.mkdir()
        project = self._directory / "sluice.yaml"
        project.write_text(PROJECT)
        self._passwords = self._directory / "passwords.json"
        self.valkey.options["aclfile"] = str(self._directory / "users.acl")
        sources = load_project(project, home=self._directory / ".sluice").sources
        users = acl_users(sources.redis_with_defaults().values(), inner=canary_stream().values())
        self._passwords.write_text(json.dumps(write_users(self._directory / "users.acl", users)))
        self._stack.callback(self.valkey.stop)
        self.valkey.start()
        self._stack.callback(self._stop_prefect)
        await self.start_prefect()
        self.redis: AsyncRedis = connect(self.valkey.url, RedisSettings(connect_timeout_seconds=1))
        self._stack.push_async_callback(self.redis.aclose)
        self.unrepeated = unrepeated(connect(self.valkey.url, RedisSettings(connect_timeout_seconds=1)))
        self._stack.push_async_callback(self.unrepeated.aclose)
        self.prefect = await self._stack.enter_async_context(
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{self._prefect_port}/api", timeout=30)
        )
        await self._deploy()
        self.to_redis = await self._stack.enter_async_context(Proxy(self.valkey.port))
        self.to_prefect = await self._stack.enter_async_context(Proxy(self._prefect_port))
        env = {
            **os.environ,
            **self._role_settings(project),
            "SLUICE_REDIS_URL": f"redis://127.0.0.1:{self.to_redis.port}/0",
            "SLUICE_REDIS__USERS_FILE": str(self._passwords),
            "SLUICE_REDIS__SHARED": "false",
            "PREFECT_API_URL": f"http://127.0.0.1:{self.to_prefect.port}/api",
        }
        (self._directory / ".sluice").mkdir()
        for name, count in ROLES.items():
            for number in range(count):
                self._keep(name, number, env)
        self._keep_roles()

    def _role_settings(self, project: Path) -> dict[str, str]:
        """Short times, so that much happens in a minute."""
        return {
            "SLUICE_HOME": str(self._directory / ".sluice"),
            "SLUICE_CONFIG": str(project),
            "PREFECT_HOME": str(self._directory / "prefect-client"),
            "SLUICE_PORTS__API": str(self.api_port),
            "SLUICE_REDIS__COMMAND_TIMEOUT_SECONDS": "3",
            "SLUICE_REDIS__CONNECT_TIMEOUT_SECONDS": "2",
            "SLUICE_JOURNAL__CLAIM_IDLE_SECONDS": "4",
            "SLUICE_LISTENERS__CLAIM_IDLE_SECONDS": "3",
            "SLUICE_DISPATCHER__MAX_BACKOFF_SECONDS": "2",
            "SLUICE_EXECUTOR__SLOTS": "2",
            "SLUICE_HEALTH__RESTARTS": "100000",  # they are killed on purpose
            "SLUICE_EXECUTOR__LOST_SECONDS": "5",
            "SLUICE_EXECUTOR__DEPLOYMENTS": f'["{FLOW}/{EXECUTED}", "{FLOW}/{faults_answers.DEPLOYMENT}"]',
            "SLUICE_RESUMER__POLL_SECONDS": "2",
        }

    def _keep(self, name: str, number: int, env: Mapping[str, str], inside: Sequence[str] = ()) -> Role:
        role = Role(name, number, env=env, directory=self._directory, inside=inside)
        self._roles.append(role)
        self._stack.callback(role.stop)
        return role

    def _keep_roles(self) -> None:
        keeping = asyncio.create_task(self._keep_running())
        self._stack.push_async_callback(_ended, keeping)

    async def _keep_running(self) -> None:
        while True:
            for role in self._roles:
                role.keep_running(time.monotonic())
            await asyncio.sleep(0.05)

    async def start_prefect(self) -> None:
        """Returns when the server is healthy, with everything that it had kept."""
        self._prefect_server, _ = await asyncio.to_thread(
            start_migrated,
            self._directory / "prefect",
            self._prefect_port,
            # Most runs are never executed here: thousands that SQLite marks as late, one by one, would lock it.
            extra_env={"PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false"},
        )

    def _stop_prefect(self) -> None:
        if self._prefect_server is not None:
            self._prefect_server.stop()

    async def _deploy(self) -> None:
        flow = await self._asked("/flows/", {"name": FLOW})
        for name in DEPLOYMENTS:
            await self._asked("/deployments/", {"name": name, "flow_id": flow["id"], "enforce_parameter_schema": False})
        folder = self._directory / "flows"
        folder.mkdir()
        (folder / "fault.py").write_text(EXECUTED_FLOW.format(marks=str(self.marks)))
        shutil.copy(CASE_FLOW, folder)
        asks = faults_answers.FLOW_SOURCE.format(
            folder=self.answers, processes=str(self.processes), rounds=faults_answers.ROUNDS
        )
        (folder / "asks.py").write_text(asks)
        for name, entrypoint in ((EXECUTED, "fault.py:mark"), (faults_answers.DEPLOYMENT, "asks.py:ask")):
            executed = {
                "name": name,
                "flow_id": flow["id"],
                "path": str(folder),
                "entrypoint": entrypoint,
                "enforce_parameter_schema": False,
                "job_variables": {"sluice_on_lost": "restart"},
            }
            await self._asked("/deployments/", executed)

    async def _asked(self, path: str, body: dict[str, Any]) -> Any:
        """The answer of Prefect, which is busy with itself now and then ("database is locked")."""
        for _ in range(50):
            with contextlib.suppress(httpx.TransportError):
                answer = await self.prefect.post(path, json=body)
                if not answer.is_server_error:
                    return answer.raise_for_status().json()
            await asyncio.sleep(0.2)  # it is asked again, up to the end of its tries
        raise AssertionError(f"Prefect does not answer to {path}")

    def ended_roles(self) -> list[str]:
        """The roles of which a process has ended, with its exit code."""
        return [f"{role.name}: {code}" for role in self._roles for code in role.ends]

    def failed_roles(self) -> list[str]:
        """The roles of which a process has ended by a fault of its own, not because it was told to or killed."""
        told = {0, -signal.SIGTERM, -signal.SIGKILL}
        return [f"{role.name} ended with {code}" for role in self._roles for code in role.ends if code not in told]

    async def refusals(self) -> list[str]:
        """What Valkey has refused a role: its own log, which ends with its process, and what the roles said of it."""
        said = [
            f"{file.name}: {line[:500]}"
            for file in self._directory.glob("*.log")
            for line in file.read_text(errors="replace").splitlines()
            if any(word in line for word in REFUSED)
        ]
        return [*said, *await refused(self.redis)]

    async def becomes_ready(self, within_seconds: float) -> None:
        """Return once the API says that events will be handled and takes some itself."""
        said = ""

        async def ready() -> bool:
            nonlocal said
            try:
                async with httpx.AsyncClient() as client:
                    answer = await client.get(f"http://127.0.0.1:{self.api_port}/health/ready", timeout=10)
            except httpx.HTTPError as error:
                said = repr(error)
                return False
            said = answer.text
            return answer.is_success

        try:
            await eventually(ready, within_seconds=within_seconds)
        except AssertionError as error:
            raise AssertionError(f"not ready after {within_seconds:g} s: {said}") from error

    async def hurt(self, rng: random.Random) -> None:
        """Do one thing, and undo it where it would last."""
        faults = {
            self._kill_role: 8,
            self._kill_machine: 1,
            self._stop_role: 3,
            self._end_role: 2,
            self._kill_valkey: 2,
            self._hang_valkey: 1,
            self._cut: 4,
            self._half_close: 2,
            self._delay: 2,
            self._swallow: 2,
            self._refuse: 2,
        }
        fault = rng.choices(list(faults), list(faults.values()))[0]
        await fault(rng)

    async def kill_prefect(self, rng: random.Random) -> None:
        """SIGKILL, and a start again after up to two seconds."""
        assert self._prefect_server
        self.faults["prefect killed"] += 1
        os.killpg(self._prefect_server.process.pid, signal.SIGKILL)
        self._prefect_server.process.wait()
        await asyncio.sleep(rng.uniform(0, 2))
        await self.start_prefect()

    async def _kill_role(self, rng: random.Random) -> None:
        role = rng.choice(self._roles)
        self.faults[f"{role.name} killed"] += 1
        role.send(signal.SIGKILL, down_seconds=rng.uniform(0, 1))

    async def _kill_machine(self, rng: random.Random) -> None:
        """An executor with everything that it runs, at one moment."""
        role = rng.choice([role for role in self._roles if role.name == "executor"])
        self.faults["executor killed with its runs"] += 1
        role.send_all(signal.SIGKILL, down_seconds=rng.uniform(0, 1))

    async def _stop_role(self, rng: random.Random) -> None:
        role = rng.choice(self._roles)
        self.faults[f"{role.name} stopped for a while"] += 1
        role.send(signal.SIGSTOP)
        await asyncio.sleep(rng.uniform(0.5, 6))
        role.send(signal.SIGCONT)

    async def _end_role(self, rng: random.Random) -> None:
        role = rng.choice(self._roles)
        self.faults[f"{role.name} ended"] += 1
        role.send(signal.SIGTERM)

    async def _kill_valkey(self, rng: random.Random) -> None:
        async with self._one_at_valkey:
            self.faults["valkey killed"] += 1
            self.valkey.kill()
            await asyncio.sleep(rng.uniform(0, 2))
            await asyncio.to_thread(self.valkey.start)

    async def _hang_valkey(self, rng: random.Random) -> None:
        async with self._one_at_valkey:
            self.faults["valkey stopped for a while"] += 1
            self.valkey.hang()
            await asyncio.sleep(rng.uniform(0.5, 5))
            self.valkey.wake()

    def _some_network(self, rng: random.Random, fault: str) -> Proxy:
        name, proxy = rng.choice([("redis", self.to_redis), ("prefect", self.to_prefect)])
        self.faults[f"network to {name} {fault}"] += 1
        return proxy

    async def _cut(self, rng: random.Random) -> None:
        self._some_network(rng, "cut").cut()

    async def _half_close(self, rng: random.Random) -> None:
        self._some_network(rng, "half-closed").half_close()

    async def _delay(self, rng: random.Random) -> None:
        proxy = self._some_network(rng, "slow")
        proxy.delay_seconds = rng.uniform(0.01, 0.1)
        await asyncio.sleep(rng.uniform(1, 3))
        proxy.delay_seconds = 0

    async def _swallow(self, rng: random.Random) -> None:
        proxy = self._some_network(rng, "silent")
        proxy.swallow()
        await asyncio.sleep(rng.uniform(0.5, 5))
        if rng.random() < 0.5:
            proxy.cut()
        proxy.flow()

    async def _refuse(self, rng: random.Random) -> None:
        proxy = self._some_network(rng, "refused")
        proxy.refusing = True
        proxy.cut()
        await asyncio.sleep(rng.uniform(0.5, 3))
        proxy.refusing = False

    async def waiting(self) -> int:
        """How much is under way: events that are not routed, runs that are not created or not executed."""
        queues, depth = DispatchQueues(self.redis), await Journal(self.redis, JournalSettings()).depth()
        lengths = await queues.lengths(await queues.names())
        executing = 0
        for rule in ("tenth", faults_answers.RULE):
            executing += int(await self.redis.scard(f"{ACTIVE}{rule}"))
        return depth.unread + depth.pending + sum(lengths.values()) + executing

    async def runs(self) -> list[dict[str, Any]]:
        """Every flow run that Prefect knows."""
        found: list[dict[str, Any]] = []
        while True:
            body = {"limit": 200, "offset": len(found), "sort": "ID_DESC"}
            page = await self._asked("/flow_runs/filter", body)
            found += page
            if len(page) < 200:
                return found


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
