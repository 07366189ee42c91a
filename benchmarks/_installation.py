"""A whole installation on PostgreSQL, its processes by the part that they belong to."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import URLError

import psutil

from benchmarks.delivery import Bench
from config.settings import CHECKOUT, RedisSettings
from services.local.embedded_servers import claim_port, start_valkey
from services.operations.health import read_reports
from services.store.connection import connect
from tests.support.balancer import Balancer
from tests.support.control_groups import processor_limited
from tests.support.databases import postgresql

FLOW = "from prefect import flow\n\n\n@flow\ndef short(number: int = 0):\n    return number\n"
DEPLOYMENT = "bench/default"
RULE = {
    "name": "bench",
    "on": "bench.event",
    "run": DEPLOYMENT,
    "parameters": {"number": "{{ event.data.number }}"},
    "run_name": "bench {{ event.data.number }}",
}
REDIS_MESSAGING = {
    "PREFECT_SERVER_EVENTS_MESSAGING_BROKER": "prefect_redis.messaging",
    "PREFECT_SERVER_EVENTS_MESSAGING_CACHE": "prefect_redis.messaging",
    "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "prefect_redis.ordering",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect_redis.lease_storage",
}
OPTIONS = json.dumps({"allowed_hosts": ["127.0.0.1"], "tickets": None, "services": False})
BENCH = "this program with its load balancer"
START_SECONDS = 120
STILL_SECONDS = 60
"""A measurement in which nothing more comes for so long is given up."""
SETTLE_SECONDS = 120
CALM_SECONDS = 3
"""What was read from the stream is stored a moment later."""
LINES = 12


class Stuck(RuntimeError):
    """A measurement that does not get on; says what hangs."""


class Installation:
    """The processes of one installation, by the part that they belong to."""

    def __init__(self, home: Path, environ: dict[str, str], shares: Mapping[str, float]) -> None:
        self.home = home
        self.environ = environ
        self.parts: dict[str, list[psutil.Process]] = {}
        self._shares = shares
        self._to_limit: list[Callable[[], None]] = []

    @contextmanager
    def process(self, part: str, *words: str, **environ: str) -> Iterator[psutil.Process]:
        """A process of the part, until the end of the context; not limited before `limit` is called."""
        limited = processor_limited(self._shares[part]) if part in self._shares else nullcontext(None)
        with limited as put, (self.home / f"{part}.log").open("ab") as log:
            started = subprocess.Popen(
                [sys.executable, *words],
                cwd=self.home,
                env={**self.environ, "PYTHONPATH": str(CHECKOUT), **environ},
                stdout=log,
                stderr=log,
            )
            ours = psutil.Process(started.pid)
            if put is not None:
                self._to_limit.append(partial(put, started.pid))
            self.parts.setdefault(part, []).append(ours)
            try:
                yield ours
            finally:
                self.parts[part].remove(ours)
                family = ours.children(recursive=True) if ours.is_running() else []
                started.terminate()
                try:
                    started.wait(30)
                except subprocess.TimeoutExpired:
                    started.kill()
                    started.wait()
                for one in family:
                    if one.is_running():
                        one.kill()
                psutil.wait_procs(family, timeout=10)

    @contextmanager
    def role(self, name: str, **environ: str) -> Iterator[None]:
        """One more process of the role."""
        with self.process(name, "-m", "services.cli", "run", name, **environ):
            yield

    def limit(self) -> None:
        """Let each process of a part with a share have no more of a core than that, from now on."""
        while self._to_limit:
            self._to_limit.pop()()

    def used(self) -> dict[str, list[float]]:
        """The processor seconds of each part until now, by process."""
        ours = psutil.Process().cpu_times()
        return {
            **{part: [*map(_seconds, processes)] for part, processes in self.parts.items()},
            BENCH: [ours.user + ours.system],
        }

    async def settled(self) -> None:
        """Wait until Prefect's background services have dealt with all events, for at most two minutes."""
        deadline = time.monotonic() + SETTLE_SECONDS
        async with connect(self.environ["PREFECT_REDIS_MESSAGING_URL"], RedisSettings()) as messages:
            while time.monotonic() < deadline:
                await asyncio.sleep(1)
                groups = await messages.xinfo_groups("events") if await messages.exists("events") else []
                if not any(group["pending"] or group["lag"] for group in groups):
                    await asyncio.sleep(CALM_SECONDS)
                    return

    async def reached(
        self,
        what: str,
        count: int,
        asked: Callable[[], Awaitable[int]],
        *,
        every_seconds: float = 0.1,
        still_seconds: float = STILL_SECONDS,
    ) -> None:
        """Wait until there are so many.

        Raises `Stuck` when no more have come for ``still_seconds``, or a process has ended.
        """
        most, used, since = -1, self.used(), time.monotonic()
        while (found := await asked()) < count:
            if found > most:
                most, used, since = found, self.used(), time.monotonic()
            ended = [part for part, all_ in self.parts.items() if any(map(_ended, all_))]
            if ended or time.monotonic() - since > still_seconds:
                since_then = {part: sum(now) - sum(used.get(part, ())) for part, now in self.used().items()}
                busy = ", ".join(f"{part} {seconds:.1f} s" for part, seconds in since_then.items())
                why = f"{' and '.join(ended)} ended" if ended else f"no more for {still_seconds:g} s"
                raise Stuck(f"{most} of {count} {what}: {why}. Processor time since: {busy}.{self._last_lines()}")
            await asyncio.sleep(every_seconds)

    def _last_lines(self) -> str:
        found = []
        for log in sorted(self.home.glob("*.log")):
            lines = log.read_text(errors="replace").splitlines()[-LINES:]
            found += [f"\n-- {log.name}", *lines] if lines else []
        return "\n".join(found)


def _ended(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def _seconds(process: psutil.Process) -> float:
    total = 0.0
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return total
    for one in family:
        try:
            total += sum(one.cpu_times()[:4])  # its own and that of its children that have ended
        except psutil.Error:
            continue
    return total


@asynccontextmanager
async def installation(
    api_processes: int = 1, *, shares: Mapping[str, float] | None = None
) -> AsyncIterator[tuple[Installation, Bench]]:
    """PostgreSQL, Valkey, Prefect with so many API processes behind one address, and what reaches them; no role yet.

    ``shares`` is how much of a core each process of a part has: with small ones, one machine shows what several do.
    """
    async with AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-bench-")))
        database = stack.enter_context(postgresql())
        redis_port = claim_port(0, "a free port")
        valkey, redis_url = start_valkey(home / "valkey", redis_port, RedisSettings(), log_file=home / "valkey.log")
        stack.callback(valkey.stop)
        (home / "short.py").write_text(FLOW)
        (home / "bench.yaml").write_text(json.dumps({"sources": {}, "rules": [RULE]}))
        environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
            **REDIS_MESSAGING,
            "PREFECT_REDIS_MESSAGING_URL": f"{redis_url.rstrip('/')}/5",
            "PREFECT_API_DATABASE_CONNECTION_URL": database.replace("+psycopg", "+asyncpg"),
            "PREFECT_HOME": str(home / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            # Nothing executes the runs that are only created, and Prefect marks late ones one by one.
            "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
            "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_LOOP_SECONDS": "120",
            "PREFECT_LOGGING_TO_CONSOLE_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "SLUICE_REDIS_URL": redis_url,
            "SLUICE_HOME": str(home / "sluice"),
            "SLUICE_CONFIG": str(home / "bench.yaml"),
            "SLUICE_LOG__LEVEL": "warning",
            "SLUICE_EXECUTOR__DEPLOYMENTS": '["*"]',
        }
        it = Installation(home, environ, shares or {})
        it.parts["Valkey"] = [psutil.Process(valkey.process.pid)]
        it.parts["PostgreSQL"] = [_server_on(int(database.partition("127.0.0.1:")[2].partition("/")[0]))]
        upgrade = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"]
        await asyncio.to_thread(subprocess.run, upgrade, env=environ, cwd=home, check=True, capture_output=True)
        ports = [claim_port(0, "a free port") for _ in range(api_processes)]
        for port in ports:
            server = ("-m", "services.local.prefect_server", OPTIONS, "--host", "127.0.0.1", "--port", str(port))
            stack.enter_context(it.process("Prefect API", *server))
            # One after the other: those that start on a new database at once stumble over each other's block types.
            await it.reached("answers of Prefect's API", 1, _healthy(port), still_seconds=START_SECONDS)
        balancer = await stack.enter_async_context(Balancer([("127.0.0.1", port) for port in ports]))
        environ["PREFECT_API_URL"] = url = f"http://127.0.0.1:{balancer.port}/api"
        stack.enter_context(it.process("Prefect services", "-m", "prefect", "server", "services", "start"))
        os.environ.update({"PREFECT_API_URL": url, "PREFECT_HOME": str(home / "client")})
        from services.prefect_api.client import connect as connect_prefect

        prefect = await stack.enter_async_context(connect_prefect(url))
        redis = await stack.enter_async_context(connect(redis_url, RedisSettings()))
        found = await prefect.request("POST", "/flows/", json={"name": DEPLOYMENT.partition("/")[0]})
        body = {"name": "default", "flow_id": found["id"], "entrypoint": "short.py:short", "path": str(home)}
        await prefect.request("POST", "/deployments/", json=body)
        it.limit()
        yield it, Bench(redis, redis_url, prefect, home, it.parts["Prefect API"][0])


def _server_on(port: int) -> psutil.Process:
    """The PostgreSQL server that listens on the port."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or [""]
        if "postgres" in words[0] and f"-p {port} " in f"{' '.join(words)} ":
            return process
    raise RuntimeError(f"there is no PostgreSQL on port {port}")


def _healthy(port: int) -> Callable[[], Awaitable[int]]:
    def asked() -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=2) as answer:
                return int(answer.status == 200)
        except (URLError, OSError):
            return 0

    return lambda: asyncio.to_thread(asked)


async def ready(it: Installation, bench: Bench, role: str, count: int) -> list[dict[str, Any]]:
    """The reports of so many processes of the role, once they say that they are ready."""
    found: list[dict[str, Any]] = []

    async def there() -> int:
        found[:] = [one for one in await read_reports(bench.redis) if one["role"] == role and one["ready"]]
        return len(found)

    await it.reached(f"processes of {role} are ready", count, there, still_seconds=START_SECONDS)
    return found
