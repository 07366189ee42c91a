"""Dispatch: its speed beside Prefect's own, the time from publishing to the run, and what waiting events cost.

``python -m benchmarks.delivery [speed|latency|memory ...] [--runs N] [--seconds S] [--waiting N]``; everything runs on
servers of its own on free ports: Valkey with append-only persistence, Prefect on SQLite, one router as its own process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from config.settings import CHECKOUT, HistorySettings, JournalSettings, RedisSettings
from events.errors import TransientError
from events.event import Event
from events.identity import identity_of
from services.local.embedded_servers import claim_port, start_prefect, start_valkey
from services.operations.health import read_reports
from services.store.connection import AsyncRedis, connect
from services.store.events.history import History
from services.store.events.journal import Journal
from services.store.runs.created_runs import CreatedRuns
from services.store.runs.dispatch_queues import DispatchQueues

if TYPE_CHECKING:
    from services.prefect_api.client import PrefectApi

FLOW = "bench"
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
IDLE_SECONDS = 0.15
"""Of CPU in two seconds: what the server's own services take."""
RULE = {
    "name": "bench",
    "on": "bench.event",
    "run": f"{FLOW}/default",
    "parameters": {"number": "{{ event.data.number }}", "note": "{{ event.data.note }}"},
    "run_name": "bench {{ event.data.number }}",
}


class Bench:
    """The servers and what reaches them."""

    def __init__(
        self, redis: AsyncRedis, redis_url: str, prefect: PrefectApi, home: Path, server: psutil.Process
    ) -> None:
        self.server = server
        self.redis = redis
        self.redis_url = redis_url
        self.prefect = prefect
        self.home = home
        self.journal = Journal(redis, JournalSettings())
        self.history = History(redis, HistorySettings())
        self.queues = DispatchQueues(redis)
        self.runs = CreatedRuns(redis)

    @contextmanager
    def router(self, **rule: Any) -> Iterator[psutil.Process]:
        """A router process with one rule."""
        config = self.home / "bench.yaml"
        config.write_text(json.dumps({"rules": [{**RULE, **rule}]}))
        environment = {
            **os.environ,
            "SLUICE_REDIS_URL": self.redis_url,
            "SLUICE_HOME": str(self.home),
            "SLUICE_CONFIG": str(config),
        }
        with (self.home / "router.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "services.cli", "run", "router"], cwd=CHECKOUT, env=environment, stderr=log
            )
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(15)

    def server_seconds(self) -> float:
        times = [process.cpu_times() for process in (self.server, *self.server.children(recursive=True))]
        return sum(time_.user + time_.system for time_ in times)

    async def publish(self, events: list[Event]) -> None:
        for start in range(0, len(events), 500):
            await self.journal.append(
                events[start : start + 500], received=datetime.now(UTC).isoformat(), listener="bench:delivery"
            )


def event(number: int) -> Event:
    data = {"number": number, "note": "an order like any other", "customer": {"id": number, "name": "Somebody"}}
    return Event(
        id=str(uuid.uuid4()), source="bench", type="bench.event", subject="a", time=datetime.now(UTC), data=data
    )


def run_body(number: int) -> dict[str, Any]:
    """What Sluice sends for such an event: the direct calls carry the same name, tags, parameters and kind of key."""
    made = event(number)
    return {
        "parameters": {"number": number, "note": made.data["note"]},
        "idempotency_key": f"{made.id}:b",
        "tags": ["sluice", "rule:bench", "source:bench", f"event:{made.id}"],
        "name": f"bench {number}",
    }


async def speed(bench: Bench, runs: int, rounds: int) -> None:
    """Rounds in which each way goes first in turn: the fuller Prefect's database, the slower it is for who comes later.

    What one leaves behind is waited out.
    """
    from services.prefect_api.deployments import read_by_name
    from services.prefect_api.dispatch import create_runs

    deployment = await read_by_name(bench.prefect, RULE["run"])

    async def single() -> int:
        count = max(10, runs // 10)
        for number in range(count):
            # Prefect's own client repeats a call that was answered 503, as it is while the database is locked.
            await bench.prefect.request("POST", f"/deployments/{deployment.id}/create_flow_run", json=run_body(number))
        return count

    async def bulk() -> int:
        done = 0
        while done < runs:
            results = await create_runs(bench.prefect, deployment, [run_body(number) for number in range(100)])
            done += sum(1 for result in results if result.run_id)
        return done

    async def dispatched() -> int:
        before = await bench.runs.open_count()
        await bench.publish([event(number) for number in range(runs)])
        # Two cores may be two threads of one: who asks too often slows the server down.
        await until(lambda: reached(bench, before + runs), every_seconds=0.1)
        return runs

    rates: dict[str, list[float]] = {"one call per event": [], "bulk endpoint": [], "sluice": []}
    cpu: dict[str, list[float]] = {name: [] for name in rates}
    after: dict[str, list[float]] = {name: [] for name in rates}
    ways = list(zip(rates, (single, bulk, dispatched), strict=True))
    await bulk()  # what a server does for the first time takes longer
    for round_ in range(rounds):
        first = round_ % len(ways)
        for name, measure in ways[first:] + ways[:first]:
            with bench.router() if measure is dispatched else nullcontext():
                if measure is dispatched:
                    await warm_up(bench)
                await settled(bench)
                began, used_before = time.perf_counter(), bench.server_seconds()
                count = await measure()
                rates[name].append(count / (time.perf_counter() - began))
                cpu[name].append((bench.server_seconds() - used_before) * 1000 / count)
                used_before = bench.server_seconds()
                await settled(bench)
                after[name].append((bench.server_seconds() - used_before) * 1000 / count)
            print(
                f"  round {round_ + 1}: {name}: {rates[name][-1]:.1f} runs/s, {cpu[name][-1]:.1f} ms of CPU a run, "
                f"{after[name][-1]:.1f} ms afterwards"
            )
    print_speed(rates, cpu, after, rounds, runs)


def print_speed(
    rates: dict[str, list[float]],
    cpu: dict[str, list[float]],
    after: dict[str, list[float]],
    rounds: int,
    runs: int,
) -> None:
    """``after``: what the server still had to do for the runs when they existed, its events and Sluice's."""
    middle = {name: statistics.median(values) for name, values in rates.items()}
    print(f"speed, medians of {rounds} rounds of {runs} runs")
    for name, rate in middle.items():
        used, later = statistics.median(cpu[name]), statistics.median(after[name])
        print(f"  {name:<20} {rate:7.1f} runs/s, {used:5.1f} + {later:4.1f} ms of the server's CPU a run")
    print(f"  sluice / bulk endpoint      {middle['sluice'] / middle['bulk endpoint']:.2f}")
    print(f"  sluice / one call per event {middle['sluice'] / middle['one call per event']:.2f}")
    each = (ours / direct for ours, direct in zip(rates["sluice"], rates["bulk endpoint"], strict=True))
    print(f"  sluice / bulk endpoint, of each round: {', '.join(f'{ratio:.2f}' for ratio in each)}")


async def settled(bench: Bench) -> None:
    """Wait until nothing is left to be told and the server has been all but idle for two seconds, at most a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        used = bench.server_seconds()
        await asyncio.sleep(2)
        idle = bench.server_seconds() - used < IDLE_SECONDS
        reports = await read_reports(bench.redis)
        if idle and not any(report["parts"].get("announcer", {}).get("waiting") for report in reports):
            return


async def latency(bench: Bench, seconds: float) -> None:
    """10 events a second; a run counts as existing when Prefect's answer that it was created has been recorded.

    Beside it, at the same pace and on the same server, a client that creates the same runs and does nothing else. Each
    has two turns; its times count from the moment at which an event was due, so that one call that takes long shows in
    the times of those that it keeps waiting.
    """
    print(f"latency at 10 events/s over {seconds:g} s each")
    took: dict[str, list[float]] = {"a plain client of Prefect": [], "published → run exists": []}
    for _ in range(2):
        for name, measure in zip(took, (direct_latency, sluice_latency), strict=True):
            took[name] += await measure(bench, seconds / 2)
    for name, values in took.items():
        print_latency(name, values)
    plain, ours = (quantiles(values) for values in took.values())
    ratios = "   ".join(f"{name} {b / a:.2f}" for name, a, b in zip(QUANTILES, plain, ours, strict=True))
    print(f"  {'sluice / plain client':<28} {ratios}")


async def sluice_latency(bench: Bench, seconds: float) -> list[float]:
    """Milliseconds from publishing to the run's record."""
    with bench.router():
        await warm_up(bench)
        await settled(bench)
        published: list[tuple[str, float]] = []
        began = time.time()
        for number in range(int(seconds * 10)):
            due = began + number / 10
            await asyncio.sleep(max(0.0, due - time.time()))
            made = event(number)
            published.append((made.id, due))
            await bench.publish([made])
        took = []
        for event_id, at in published:
            found = await until(lambda event_id=event_id: with_run(bench, event_id))
            took.append((found.runs[0].created.timestamp() - at) * 1000)
    return took


async def direct_latency(bench: Bench, seconds: float) -> list[float]:
    """Never two calls at once: on SQLite they would hold each other up until nothing gets through."""
    from services.prefect_api.deployments import read_by_name
    from services.prefect_api.dispatch import create_runs

    deployment = await read_by_name(bench.prefect, RULE["run"])
    await settled(bench)
    took = []
    began = time.perf_counter()
    for number in range(int(seconds * 10)):
        due = began + number / 10
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        body = run_body(number)
        while not await created(lambda body=body: create_runs(bench.prefect, deployment, [body])):
            pass  # the database was locked, as it may be for Sluice
        took.append((time.perf_counter() - due) * 1000)
    return took


async def created(call: Callable[[], Awaitable[Sequence[Any]]]) -> bool:
    try:
        return bool((await call())[0].run_id)
    except TransientError:
        return False


def quantiles(took: list[float]) -> list[float]:
    ordered = sorted(took)
    return [ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in QUANTILES.values()]


def print_latency(name: str, took: list[float]) -> None:
    values = "   ".join(f"{label} {ms:4.0f} ms" for label, ms in zip(QUANTILES, quantiles(took), strict=True))
    print(f"  {name:<28} {values}   max {max(took):4.0f} ms")


async def memory(bench: Bench, waiting: int) -> None:
    """Events that wait before a router reads them, and then in their queue, for a deployment that does not exist."""
    before = await used(bench)
    await bench.publish([event(number) for number in range(waiting)])
    in_journal = await used(bench) - before
    with bench.router(run="nobody/registered") as router:
        await asyncio.sleep(6)
        small = router.memory_info().rss
        await until(lambda: routed(bench, waiting), seconds=300)
        await asyncio.sleep(6)
        large = router.memory_info().rss
        in_queue = await used(bench) - before
    mib = 1024 * 1024
    print(f"memory of {waiting} waiting events")
    print(f"  not yet routed: {in_journal / mib:6.1f} MiB in Valkey ({in_journal / waiting:.0f} bytes an event)")
    print(f"  held by a rule: {in_queue / mib:6.1f} MiB in Valkey ({in_queue / waiting:.0f} bytes an event)")
    print(f"  router process: {small / mib:.0f} MiB soon after its start, {large / mib:.0f} MiB with all of them held")


async def warm_up(bench: Bench) -> None:
    before = await bench.runs.open_count()
    await bench.publish([event(-1)])
    await until(lambda: reached(bench, before + 1))


async def reached(bench: Bench, count: int) -> bool:
    return await bench.runs.open_count() >= count


async def with_run(bench: Bench, event_id: str) -> Any:
    found = await bench.history.get(identity_of("bench", event_id))
    return found if found is not None and found.runs else None


async def routed(bench: Bench, count: int) -> bool:
    return sum((await bench.queues.lengths(await bench.queues.names())).values()) >= count


async def used(bench: Bench) -> int:
    return int((await bench.redis.info("memory"))["used_memory"])


async def until(probe: Callable[[], Awaitable[Any]], *, seconds: float = 600, every_seconds: float = 0.02) -> Any:
    deadline = time.monotonic() + seconds
    while not (answer := await probe()):
        if time.monotonic() > deadline:
            raise TimeoutError("the benchmark did not get on")
        await asyncio.sleep(every_seconds)
    return answer


@asynccontextmanager
async def servers() -> AsyncIterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as directory:
        home = Path(directory)
        valkey, redis_url = start_valkey(
            home / "valkey", claim_port(0, "any"), RedisSettings(), log_file=home / "valkey.log"
        )
        # Nothing executes the runs here, and a server that marks them as late, one by one, has no time to create more.
        prefect, api_url = start_prefect(
            home / "prefect",
            claim_port(0, "any"),
            log_file=home / "prefect.log",
            extra_env={"PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false"},
        )
        os.environ["PREFECT_API_URL"] = api_url
        os.environ["PREFECT_HOME"] = str(home / "client")
        try:
            from services.prefect_api.client import connect as connect_prefect

            async with connect_prefect() as api, connect(redis_url, RedisSettings()) as redis:
                flow = await api.request("POST", "/flows/", json={"name": FLOW})
                await api.request("POST", "/deployments/", json={"name": "default", "flow_id": flow["id"]})
                yield Bench(redis, redis_url, api, home, psutil.Process(prefect.process.pid))
        finally:
            prefect.stop()
            valkey.stop()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=["speed", "latency", "memory", []], default=[])
    parser.add_argument("--runs", type=int, default=600, help="runs of each round of `speed`")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60, help="how long `latency` publishes")
    parser.add_argument("--waiting", type=int, default=100_000, help="events of `memory`")
    options = parser.parse_args()
    parts = options.parts or ["latency", "speed", "memory"]
    async with servers() as bench:
        if "latency" in parts:
            await latency(bench, options.seconds)
        if "speed" in parts:
            await speed(bench, options.runs, options.rounds)
        if "memory" in parts:
            await bench.redis.flushdb()
            await memory(bench, options.waiting)


if __name__ == "__main__":
    asyncio.run(main())
