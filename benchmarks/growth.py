"""What more routers bring, on PostgreSQL: runs created a second, and each part's processor time for one.

``python -m benchmarks.growth [--runs N]``. PostgreSQL, Valkey, Prefect's API (`prefect server start --no-services`),
Prefect's background services and every router are processes of their own on free ports of this machine. The part with
the most processor time for a run is what limits where there are cores enough.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError

import psutil

from benchmarks.delivery import Bench, event, until, warm_up
from config.settings import CHECKOUT, RedisSettings
from services.local.embedded_servers import claim_port, start_valkey
from services.operations.health import read_reports
from services.store.connection import connect
from tests.support.databases import postgresql

FLOW = "from prefect import flow\n\n\n@flow\ndef short(number: int = 0):\n    return number\n"
REDIS_MESSAGING = {
    "PREFECT_MESSAGING_BROKER": "prefect_redis.messaging",
    "PREFECT_MESSAGING_CACHE": "prefect_redis.messaging",
    "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "prefect_redis.ordering",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect_redis.lease_storage",
}
START_SECONDS = 120
IDLE_SHARE = 0.15
"""Of one core, over two seconds: what all parts take together when nothing is left to do."""


class Installation:
    """The processes of one installation, by the part that they belong to."""

    def __init__(self, home: Path, environ: dict[str, str]) -> None:
        self.home = home
        self.environ = environ
        self.parts: dict[str, list[psutil.Process]] = {}

    @contextmanager
    def process(self, part: str, *words: str, **environ: str) -> Iterator[None]:
        """A process of the part, until the end of the context."""
        with (self.home / f"{part}.log").open("ab") as log:
            started = subprocess.Popen(
                [sys.executable, *words], cwd=self.home, env={**self.environ, **environ}, stdout=log, stderr=log
            )
        ours = psutil.Process(started.pid)
        self.parts.setdefault(part, []).append(ours)
        try:
            yield
        finally:
            self.parts[part].remove(ours)
            started.terminate()
            try:
                started.wait(20)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()

    @contextmanager
    def role(self, name: str, **environ: str) -> Iterator[None]:
        """One more process of the role."""
        with self.process(name, "-m", "services.cli", "run", name, PYTHONPATH=str(CHECKOUT), **environ):
            yield

    def used(self) -> dict[str, float]:
        """The processor seconds of each part until now."""
        return {part: sum(map(_seconds, processes)) for part, processes in self.parts.items()}

    async def settled(self) -> None:
        """Wait until all parts together have been all but idle for two seconds, for at most two minutes."""
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            before = sum(self.used().values())
            await asyncio.sleep(2)
            if sum(self.used().values()) - before < IDLE_SHARE * 2:
                return


def _seconds(process: psutil.Process) -> float:
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        try:
            total += sum(one.cpu_times()[:4])  # its own and that of its children that have ended
        except psutil.Error:
            continue
    return total


@asynccontextmanager
async def installation(*, rule: Mapping[str, Any]) -> AsyncIterator[tuple[Installation, Bench]]:
    """PostgreSQL, Valkey and Prefect, and what reaches them; no role yet."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-bench-")))
        database = stack.enter_context(postgresql())
        redis_port = claim_port(0, "a free port")
        valkey, redis_url = start_valkey(home / "valkey", redis_port, RedisSettings(), log_file=home / "valkey.log")
        stack.callback(valkey.stop)
        port = claim_port(0, "a free port")
        url = f"http://127.0.0.1:{port}/api"
        (home / "short.py").write_text(FLOW)
        (home / "bench.yaml").write_text(json.dumps({"sources": {}, "rules": [rule]}))
        environ = {
            **os.environ,
            **REDIS_MESSAGING,
            "PREFECT_REDIS_MESSAGING_URL": f"{redis_url.rstrip('/')}/5",
            "PREFECT_API_DATABASE_CONNECTION_URL": database.replace("+psycopg", "+asyncpg"),
            "PREFECT_HOME": str(home / "prefect"),
            "PREFECT_API_URL": url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_UI_ENABLED": "false",
            # Nothing executes the runs that are only created, and Prefect marks late ones one by one.
            "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
            "PREFECT_LOGGING_TO_CONSOLE_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "SLUICE_REDIS_URL": redis_url,
            "SLUICE_HOME": str(home / "sluice"),
            "SLUICE_CONFIG": str(home / "bench.yaml"),
            "SLUICE_LOG__LEVEL": "warning",
            "SLUICE_EXECUTOR__DEPLOYMENTS": '["*"]',
        }
        it = Installation(home, environ)
        it.parts["Valkey"] = [psutil.Process(valkey.process.pid)]
        it.parts["PostgreSQL"] = [_server_on(int(database.partition("127.0.0.1:")[2].partition("/")[0]))]
        alone = ["--no-services", "--port", str(port)]
        upgrade = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"]
        await asyncio.to_thread(subprocess.run, upgrade, env=environ, cwd=home, check=True, capture_output=True)
        stack.enter_context(it.process("Prefect API", "-m", "prefect", "server", "start", *alone))
        await until(lambda: _healthy(url), seconds=START_SECONDS, every_seconds=0.2)
        stack.enter_context(it.process("Prefect services", "-m", "prefect", "server", "services", "start"))
        os.environ.update({"PREFECT_API_URL": url, "PREFECT_HOME": str(home / "client")})
        from services.prefect_api.client import connect as connect_prefect

        async with connect_prefect(url) as prefect, connect(redis_url, RedisSettings()) as redis:
            for flow in ("bench",):
                found = await prefect.request("POST", "/flows/", json={"name": flow})
                body = {"name": "default", "flow_id": found["id"], "entrypoint": "short.py:short", "path": str(home)}
                await prefect.request("POST", "/deployments/", json=body)
            yield it, Bench(redis, redis_url, prefect, home, it.parts["Prefect API"][0])


def _server_on(port: int) -> psutil.Process:
    """The PostgreSQL server that listens on the port."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or [""]
        if "postgres" in words[0] and f"-p {port} " in f"{' '.join(words)} ":
            return process
    raise RuntimeError(f"there is no PostgreSQL on port {port}")


async def _healthy(url: str) -> bool:
    def asked() -> bool:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False

    return await asyncio.to_thread(asked)


async def ready(bench: Bench, role: str, count: int) -> None:
    """Wait until so many processes of the role say that they are ready."""

    async def there() -> bool:
        return sum(one["role"] == role and one["ready"] for one in await read_reports(bench.redis)) >= count

    await until(there, seconds=START_SECONDS, every_seconds=0.2)


RULE = {
    "name": "bench",
    "on": "bench.event",
    "run": "bench/default",
    "parameters": {"number": "{{ event.data.number }}"},
    "run_name": "bench {{ event.data.number }}",
}


async def created(it: Installation, bench: Bench, runs: int) -> tuple[float, dict[str, float]]:
    """Seconds for so many runs out of as many events, and each part's processor milliseconds for a run."""
    await warm_up(bench)
    await it.settled()
    before, used = await bench.runs.open_count(), it.used()
    began = time.perf_counter()
    await bench.publish([event(number) for number in range(runs)])

    async def done() -> bool:
        return await bench.runs.open_count() >= before + runs

    await until(done, every_seconds=0.1)
    took = time.perf_counter() - began
    await it.settled()  # what Prefect still does for the runs belongs to them
    return took, {part: (seconds - used.get(part, 0.0)) * 1000 / runs for part, seconds in it.used().items()}


def row(what: str, rate: float, unit: str, costs: Mapping[str, float]) -> None:
    """One line: the rate, and what each part spent on one."""
    each = ", ".join(f"{part} {ms:.1f}" for part, ms in sorted(costs.items(), key=lambda pair: -pair[1]) if ms >= 0.05)
    print(f"{what:<42} {rate:7.1f} {unit}   ms of processor time each: {each}", flush=True)


async def creation(runs: int) -> None:
    async with installation(rule=RULE) as (it, bench):
        for routers in (1, 2):
            with ExitStack() as stack:
                for _ in range(routers):
                    stack.enter_context(it.role("router"))
                await ready(bench, "router", routers)
                took, costs = await created(it, bench, runs)
            row(f"{routers} router{'s' * (routers > 1)}", runs / took, "runs/s", costs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=600, help="number of runs that are created each time")
    asyncio.run(creation(parser.parse_args().runs))


if __name__ == "__main__":
    main()
