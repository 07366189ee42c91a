"""What more processes bring, on PostgreSQL: runs created, runs executed and signals a second, and what limits each.

``python -m benchmarks.growth [creation|hosts|execution|signals|model ...] [--runs N] [--executed N] [--signals N]
[--api N ...]``. PostgreSQL, Valkey, the Prefect API processes (`prefect server start --workers N`), Prefect's
background services and every role are processes of their own on free ports of this machine. Beside each rate stands the
processor time of each part for one run or signal: the part with the most is what limits where there are cores enough.

``hosts`` gives an installation one core for all its processes, then two, and prints beside each rate what the model
says. ``model`` computes from what one event costs each part, from the journal to its completed run, what 1, 10 and 100
hosts carry and what limits them (docs/scaling.md).
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
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError

import psutil

from benchmarks.delivery import Bench, event, until, warm_up
from benchmarks.signals import Bench as SignalBench
from config.settings import CHECKOUT, RedisSettings
from services.local.embedded_servers import claim_port, start_valkey
from services.operations.health import read_reports
from services.store.connection import connect
from tests.support.databases import postgresql

PARTS = ("creation", "hosts", "execution", "signals", "model")
FLOW = "from prefect import flow\n\n\n@flow\ndef short(number: int = 0):\n    return number\n"
REDIS_MESSAGING = {
    "PREFECT_MESSAGING_BROKER": "prefect_redis.messaging",
    "PREFECT_MESSAGING_CACHE": "prefect_redis.messaging",
    "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "prefect_redis.ordering",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect_redis.lease_storage",
}
START_SECONDS = 120
AT_ONCE = 100
CORES_OF_A_HOST = 2
"""In the model: what the machines of docs/benchmarks.md have."""

IDLE_SHARE = 0.15
"""Of one core, over two seconds: what all parts take together when nothing is left to do."""


class Installation:
    """The processes of one installation, by the part that they belong to."""

    def __init__(self, home: Path, environ: dict[str, str]) -> None:
        self.home = home
        self.environ = environ
        self.parts: dict[str, list[psutil.Process]] = {}
        self.cores: Sequence[int] | None = None

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

    def pin(self, cores: Sequence[int]) -> None:
        """Let all processes run on these cores only."""
        for processes in self.parts.values():
            for process in processes:
                for one in (process, *process.children(recursive=True)):
                    one.cpu_affinity(list(cores))

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
async def installation(api_processes: int, *, rule: Mapping[str, Any]) -> AsyncIterator[tuple[Installation, Bench]]:
    """PostgreSQL, Valkey and Prefect with so many API processes, and what reaches them; no role yet."""
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
        workers = ["--workers", str(api_processes), "--no-services", "--port", str(port)]
        upgrade = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"]
        await asyncio.to_thread(subprocess.run, upgrade, env=environ, cwd=home, check=True, capture_output=True)
        stack.enter_context(it.process("Prefect API", "-m", "prefect", "server", "start", *workers))
        await until(lambda: _healthy(url), seconds=START_SECONDS, every_seconds=0.2)
        stack.enter_context(it.process("Prefect services", "-m", "prefect", "server", "services", "start"))
        os.environ.update({"PREFECT_API_URL": url, "PREFECT_HOME": str(home / "client")})
        from services.prefect_api.client import connect as connect_prefect

        async with connect_prefect(url) as prefect, connect(redis_url, RedisSettings()) as redis:
            for flow in ("bench", "short"):
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


async def creation(options: argparse.Namespace) -> None:
    for processes in options.api:
        async with installation(processes, rule=RULE) as (it, bench):
            for routers in (1, 2):
                for calls in sorted({1, processes}):
                    with ExitStack() as stack:
                        for _ in range(routers):
                            stack.enter_context(it.role("router", SLUICE_DISPATCHER__CALLS_PER_DEPLOYMENT=str(calls)))
                        await ready(bench, "router", routers)
                        took, costs = await created(it, bench, options.runs)
                    what = f"{processes} API, {routers} router{'s' * (routers > 1)}, {calls} call{'s' * (calls > 1)}"
                    row(what, options.runs / took, "runs/s", costs)


async def hosts(options: argparse.Namespace) -> None:
    """All parts on one core, then on two, with two API processes: the same work, twice the cores."""
    async with installation(2, rule=RULE) as (it, bench):
        with it.role("router", SLUICE_DISPATCHER__CALLS_PER_DEPLOYMENT="2"):
            await ready(bench, "router", 1)
            for cores in (1, 2):
                it.pin(sorted(os.sched_getaffinity(0))[:cores])
                took, costs = await created(it, bench, options.runs)
                row(f"{cores} core{'s' * (cores > 1)} for all parts", options.runs / took, "runs/s", costs)
                print(f"{'':<4}the model says at most {cores * 1000 / sum(costs.values()):.1f} runs/s")


async def execution(options: argparse.Namespace, *, most: int = 2) -> dict[str, float]:
    """Runs of a flow that returns at once, created in bulk, until Prefect has all of them as Completed.

    Returns the processor milliseconds of each part for a run, with one executor.
    """
    from services.prefect_api.deployments import read_by_name
    from services.prefect_api.dispatch import create_runs

    async with installation(1, rule=RULE) as (it, bench):
        deployment = await read_by_name(bench.prefect, "short/default")
        wanted = {"flows": {"name": {"any_": ["short"]}}, "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}

        async def completed() -> int:
            return int(await bench.prefect.request("POST", "/flow_runs/count", json=wanted))

        async def run(count: int) -> None:
            before = await completed()
            for start in range(0, count, AT_ONCE):
                bodies = [{"parameters": {"number": number}} for number in range(start, min(count, start + AT_ONCE))]
                await create_runs(bench.prefect, deployment, bodies)

            async def done() -> bool:
                return await completed() >= before + count

            await until(done, every_seconds=0.5)

        alone: dict[str, float] = {}
        for executors in range(1, most + 1):
            with ExitStack() as stack:
                for number in range(executors):
                    stack.enter_context(it.role("executor", SLUICE_EXECUTOR__NAME=f"bench-{number}"))
                await ready(bench, "executor", executors)
                await run(4 * executors)
                await it.settled()
                used, began = it.used(), time.perf_counter()
                await run(options.executed)
                took = time.perf_counter() - began
                await it.settled()
                costs = {part: (now - used.get(part, 0.0)) * 1000 / options.executed for part, now in it.used().items()}
            row(f"{executors} executor{'s' * (executors > 1)} of 4 slots", options.executed / took, "runs/s", costs)
            alone = alone or costs
    return alone


async def signals(options: argparse.Namespace) -> None:
    """Signals by key on a stream, each to a paused run of its own, until all are applied."""
    for resumers in (1, 2):
        async with installation(1, rule=RULE) as (it, bench):
            with ExitStack() as stack:
                stack.enter_context(it.role("listeners"))
                for _ in range(resumers):
                    stack.enter_context(it.role("resumer"))
                await ready(bench, "listeners", 1)
                await ready(bench, "resumer", resumers)
                waits = SignalBench(bench.redis, bench.prefect, it.home, it.environ, bench.server)
                keys = [f"k-{number}" for number in range(options.signals)]
                runs = await waits.park(keys, suspended=False)
                await waits.forms(list(zip(runs, keys, strict=True)))
                await it.settled()
                used, began = it.used(), time.perf_counter()
                sent = [await waits.publish(key=key) for key in keys]
                for one in sent:
                    await waits.applied_ms(*one)
                took = time.perf_counter() - began
                await it.settled()
                costs = {part: (now - used.get(part, 0.0)) * 1000 / len(keys) for part, now in it.used().items()}
            row(f"{resumers} resumer{'s' * (resumers > 1)}", len(keys) / took, "signals/s", costs)


async def model(options: argparse.Namespace) -> None:
    """What hosts of two cores carry, when a part that may run many times runs on all of them."""
    async with installation(1, rule=RULE) as (it, bench):
        with it.role("router"):
            await ready(bench, "router", 1)
            took, costs = await created(it, bench, options.runs)
    row("an event to its run", options.runs / took, "runs/s", costs)
    each = await execution(options, most=1)
    each["router"] = costs["router"]
    for count in (1, 10, 100):
        limits = sorted((rate, part) for part, rate in limits_of(each, count).items())
        said = "; ".join(f"{part} {rate:.0f}" for rate, part in limits[:3])
        print(f"{count:>4} host{'s' * (count > 1):<1}: at most {limits[0][0]:.0f} runs/s. Limits in runs/s: {said}")


def limits_of(each: Mapping[str, float], hosts: int) -> dict[str, float]:
    """Runs a second by each limit, for ``each`` part's processor milliseconds for a run."""
    cores = CORES_OF_A_HOST
    return {
        "the cores of all hosts": hosts * cores * 1000 / sum(each.values()),
        "PostgreSQL, on one host": cores * 1000 / each["PostgreSQL"],
        "the router that dispatches, one core": 1000 / each["router"],
        "Valkey, one core": 1000 / each["Valkey"],
        "Prefect's background services, one core": 1000 / each["Prefect services"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"which of {', '.join(PARTS)}; all by default")
    parser.add_argument("--runs", type=int, default=600, help="number of runs that are created each time")
    parser.add_argument("--executed", type=int, default=200, help="number of runs that are executed each time")
    parser.add_argument("--signals", type=int, default=300, help="number of signals each time")
    parser.add_argument("--api", type=int, nargs="*", default=[1, 2, 4], help="numbers of Prefect API processes")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"there is no part {', '.join(sorted(unknown))}: there are {', '.join(PARTS)}")
    for name in options.parts or PARTS:
        print(f"-- {name}", flush=True)
        asyncio.run(globals()[name](options))


if __name__ == "__main__":
    main()
