"""What more processes bring, on PostgreSQL: runs created, runs executed and signals applied a second.

``python -m benchmarks.growth [creation|calls|execution|signals ...] [--runs N] [--executed N] [--signals N]
[--api N ...] [--rounds N] [--share CORES]``. PostgreSQL, Valkey, the processes of Prefect's API (behind a balancer that
hands each new connection to the next one), Prefect's background services and every role are processes of their own.

Each process of the kind whose number grows has ``--share`` of a core and no more, so that there is room for several of
them on this machine; the others have what they want. Beside each rate stands the processor time of each part for one
run or signal. ``calls`` measures in turns how many bulk calls at once for a deployment are fastest.

A measurement in which nothing more comes for a minute ends the program, with what the parts did meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import Any

from benchmarks._installation import DEPLOYMENT, Installation, Stuck, installation, ready
from benchmarks.delivery import Bench, event
from benchmarks.signals import Bench as SignalBench

PARTS = ("creation", "calls", "execution", "signals")
AT_ONCE = 100
IDLE_SECONDS = 10
API = "Prefect API"


class Measured:
    """What one measurement found."""

    def __init__(self) -> None:
        self.rate = 0.0
        self.costs: dict[str, list[float]] = {}
        """The processor milliseconds of each part for one, by process."""

    def row(self, what: str, unit: str) -> None:
        parts = sorted(self.costs.items(), key=lambda pair: -sum(pair[1]))
        each = ", ".join(f"{part} {_told(ms)}" for part, ms in parts if sum(ms) >= 0.05)
        print(f"{what:<42} {self.rate:7.1f} {unit}   ms of processor time each: {each}", flush=True)


@asynccontextmanager
async def measured(it: Installation, count: int) -> AsyncIterator[Measured]:
    """From quiet to quiet: what Prefect still does for the runs afterwards belongs to them, but not to the rate.

    What the parts take when there is nothing to do is left out of the costs.
    """
    await it.settled()
    quiet = it.used()
    await asyncio.sleep(IDLE_SECONDS)
    found, used, began = Measured(), it.used(), time.perf_counter()
    yield found
    found.rate = count / (time.perf_counter() - began)
    await it.settled()
    after, windows = it.used(), (time.perf_counter() - began) / IDLE_SECONDS
    for part, all_ in after.items():
        rows = zip(all_, used[part], quiet[part], strict=True)
        found.costs[part] = [(now - then - (then - idle) * windows) * 1000 / count for now, then, idle in rows]


def _told(each: Sequence[float]) -> str:
    """Of several processes the one that does the most limits: as much as it can do is done."""
    most = f" (the busiest of {len(each)}: {max(each):.1f})" if len(each) > 1 else ""
    return f"{sum(each):.1f}{most}"


async def created(it: Installation, bench: Bench, runs: int, *, routers: int = 1, calls: int = 1) -> Measured:
    """So many runs out of as many events."""
    with ExitStack() as stack:
        for _ in range(routers):
            stack.enter_context(it.role("router", SLUICE_DISPATCHER__CALLS_PER_DEPLOYMENT=str(calls)))
        await ready(it, bench, "router", routers)
        before = await bench.runs.open_count()
        await bench.publish([event(-1)])  # what a router does for the first time takes longer
        await it.reached("runs to warm up", before + 1, bench.runs.open_count)
        async with measured(it, runs) as found:
            await bench.publish([event(number) for number in range(runs)])
            await it.reached("open runs", before + 1 + runs, bench.runs.open_count)
    return found


async def creation(options: argparse.Namespace) -> None:
    """With twice as many calls at once as there are API processes, where there are several."""
    for processes in options.api:
        async with installation(processes, shares=shares(options, API)) as (it, bench):
            for routers in (1, 2):
                found = await created(
                    it, bench, options.runs, routers=routers, calls=min(8, 2 * processes if processes > 1 else 1)
                )
                found.row(f"{number(processes, 'API process')}, {number(routers, 'router')}", "runs/s")


async def calls(options: argparse.Namespace) -> None:
    """In turns, each round begun by another one: the fuller Prefect's database, the slower it is."""
    for processes in options.api:
        ways = (1, 2, 4)
        rates: dict[int, list[float]] = {way: [] for way in ways}
        async with installation(processes, shares=shares(options, API)) as (it, bench):
            for round_ in range(options.rounds):
                for way in ways[round_ % 3 :] + ways[: round_ % 3]:
                    found = await created(it, bench, options.runs, calls=way)
                    found.row(f"{number(processes, 'API process')}, {number(way, 'call')} at once", "runs/s")
                    rates[way].append(found.rate)
        for way in ways[1:]:
            ratios = [rate / one for rate, one in zip(rates[way], rates[1], strict=True)]
            each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            print(f"{number(processes, 'API process')}, {way} calls / 1: {statistics.median(ratios):.2f} ({each})")


async def execution(options: argparse.Namespace) -> None:
    """Runs of a flow that returns at once, created in bulk, until Prefect has all of them as Completed."""
    from services.prefect_api.deployments import read_by_name
    from services.prefect_api.dispatch import create_runs

    wanted = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
    async with installation(options.execution_api, shares=shares(options, "executor")) as (it, bench):
        deployment = await read_by_name(bench.prefect, DEPLOYMENT)

        async def completed() -> int:
            return int(await bench.prefect.request("POST", "/flow_runs/count", json=wanted))

        async def run(count: int) -> None:
            before = await completed()
            for start in range(0, count, AT_ONCE):
                bodies = [{"parameters": {"number": one}} for one in range(start, min(count, start + AT_ONCE))]
                await create_runs(bench.prefect, deployment, bodies)
            await it.reached("runs Completed", before + count, completed, every_seconds=0.5)

        for executors in (1, 2):
            with ExitStack() as stack:
                for _ in range(executors):
                    # All of one name: those of another one take only what is pinned to it.
                    stack.enter_context(it.role("executor"))
                for report in await ready(it, bench, "executor", executors):
                    if DEPLOYMENT not in report["parts"]["executor"]["deployments"]:
                        raise Stuck(f"an executor does not take {DEPLOYMENT}: {report['parts']['executor']}")
                it.limit()
                await run(4 * executors)
                async with measured(it, options.executed) as found:
                    await run(options.executed)
            found.row(f"{number(executors, 'executor')} of 4 slots", "runs/s")


async def signals(options: argparse.Namespace) -> None:
    """Signals by key on a stream, each to a paused run of its own, until all are applied."""
    for processes in options.api:
        async with installation(processes, shares=shares(options, API)) as (it, bench):
            for resumers in (1, 2):
                with ExitStack() as stack:
                    stack.enter_context(it.role("listeners"))
                    for _ in range(resumers):
                        stack.enter_context(it.role("resumer"))
                    await ready(it, bench, "listeners", 1)
                    await ready(it, bench, "resumer", resumers)
                    found = await applied(it, bench, options.signals, batch=resumers)
                found.row(f"{number(processes, 'API process')}, {number(resumers, 'resumer')}", "signals/s")


async def applied(it: Installation, bench: Bench, count: int, *, batch: int) -> Measured:
    waits = SignalBench(bench.redis, bench.prefect, it.home, it.environ, bench.server)
    keys = [f"k-{batch}-{one}" for one in range(count)]
    runs = await waits.park(keys, suspended=False)
    await waits.forms(list(zip(runs, keys, strict=True)))
    await it.reached("waits known", count, waits.waits.count)
    async with measured(it, count) as found:
        sent = [await waits.publish(key=key) for key in keys]

        async def decided() -> int:
            records = [await waits.store.get(signal_id) for signal_id, _ in sent]
            return sum(record is not None and record.status == "applied" for record in records)

        await it.reached("signals applied", count, decided, every_seconds=0.5)
    return found


def shares(options: argparse.Namespace, part: str) -> Mapping[str, float]:
    return {part: options.share} if options.share else {}


def number(count: int, what: str) -> str:
    plural = f"{what}{'es' if what.endswith('s') else 's'}"
    return f"{count} {what if count == 1 else plural}"


async def measure(options: argparse.Namespace) -> None:
    functions: dict[str, Any] = {"creation": creation, "calls": calls, "execution": execution, "signals": signals}
    for name in options.parts or PARTS:
        print(f"-- {name}", flush=True)
        await functions[name](options)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"which of {', '.join(PARTS)}; all by default")
    parser.add_argument("--runs", type=int, default=400, help="number of runs that are created each time")
    parser.add_argument("--executed", type=int, default=100, help="number of runs that are executed each time")
    parser.add_argument("--signals", type=int, default=200, help="number of signals each time")
    parser.add_argument("--api", type=int, nargs="*", default=[1, 2, 4], help="numbers of Prefect API processes")
    parser.add_argument("--execution-api", type=int, default=1, help="number of API processes of `execution`")
    parser.add_argument("--rounds", type=int, default=3, help="of `calls`")
    parser.add_argument("--share", type=float, default=0.2, help="cores of each process that grows in number; 0: all")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"there is no part {', '.join(sorted(unknown))}: there are {', '.join(PARTS)}")
    try:
        asyncio.run(measure(options))
    except Stuck as stuck:
        print(f"it hangs: {stuck}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
