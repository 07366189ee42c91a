"""Resume signals: from publishing to the resumed run and to the flow's next line, beside Prefect's pause and suspend.

``python -m benchmarks.signals [applied|paused|suspended|rate|scale ...] [--count N] [--plain N] [--seconds S]
[--waiting N]``. Everything runs on servers of its own on free ports: Valkey with append-only persistence, Prefect on
SQLite, and listeners, resumer and executor as processes of their own.

Goals: published to applied p50 at most 50 ms and p99 at most 150 ms at 10 a second; published to the next line p50 at
most 120 ms paused and 800 ms suspended; 500 signals a minute with none late by more than 1 s; the same with 10,000
runs waiting.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from config.settings import CHECKOUT, RedisSettings, ResumerSettings
from services.local.embedded_servers import claim_port, start_prefect, start_valkey
from services.store.connection import AsyncRedis, connect
from services.store.signals.signals import SignalStore
from services.store.signals.waits import Waits
from sluice.protocol import RESUME_NAME, form, keyset, pause_key, schema_key

if TYPE_CHECKING:
    from services.prefect_api.client import PrefectApi

PARTS = ("applied", "paused", "suspended", "rate", "scale")
ENTRYPOINT = "benchmarks/flows_that_wait/flows.py"
ANY_OBJECT = {"type": "object", "properties": {}, "additionalProperties": True}
AT_ONCE = 100
CALM_SECONDS = 5
"""How long the server is left alone after runs were made in bulk: it has their events to store."""

IDLE_SECONDS = 0.3
"""Of CPU in two seconds: with 10,000 runs waiting, what the server's own services take."""

WARM_UP = 5
QUIET_SECONDS = 1.0
"""An answer seldom comes in the moment in which a run has begun to wait, while Prefect still tells of that."""


class Bench:
    """The servers and what reaches them."""

    def __init__(
        self, redis: AsyncRedis, api: PrefectApi, home: Path, environ: dict[str, str], server: psutil.Process
    ) -> None:
        self.server = server
        self.redis = redis
        self.api = api
        self.home = home
        self.environ = environ
        self.store = SignalStore(redis, ResumerSettings())
        self.waits = Waits(redis)

    async def calm(self, within: float = 300) -> float:
        """Wait until the server has little to do any more, and answer how many seconds that took."""
        began = time.monotonic()
        while time.monotonic() - began < within:
            used = sum(self.server.cpu_times()[:2])
            await asyncio.sleep(2)
            if sum(self.server.cpu_times()[:2]) - used < IDLE_SECONDS:
                break
        return time.monotonic() - began

    async def publish(self, **message: Any) -> tuple[str, float]:
        """One signal on the stream, as another system sends it; answers its id and when."""
        body = {"id": str(uuid.uuid4()), **message}
        at = time.time()
        await self.redis.xadd(RESUME_NAME, {"event": json.dumps(body)})
        return body["id"], at

    async def applied_ms(self, signal_id: str, at: float) -> float:
        """Publishing to the record that Prefect has resumed the run."""
        record = await self.store.outcome(signal_id, 60, of=("applied", "rejected", "duplicate"))
        if record is None or record.status != "applied" or record.decided is None:
            raise RuntimeError(f"the signal was not applied: {record}")
        return (record.decided.timestamp() - at) * 1000

    async def deployment(self, flow: str) -> str:
        found = await self.api.request("POST", "/flows/", json={"name": flow})
        body = {"name": "bench", "flow_id": found["id"], "entrypoint": f"{ENTRYPOINT}:{flow}", "path": str(CHECKOUT)}
        created = await self.api.request("POST", "/deployments/", json=body)
        return str(created["id"])

    async def park(self, keys: Sequence[str], *, suspended: bool) -> list[str]:
        """Runs that wait as `wait_for_signal` makes them wait, without a process, created in bulk."""
        deployment = await self.deployment("parked")
        run_ids: list[str] = []
        for start in range(0, len(keys), AT_ONCE):
            runs = []
            for key in keys[start : start + AT_ONCE]:
                pause = pause_key(key, 1)
                details = {
                    "pause_key": pause,
                    "pause_reschedule": suspended,
                    "run_input_keyset": keyset(pause, keys=[key]),
                }
                state = {"type": "PAUSED", "name": "Suspended" if suspended else "Paused", "state_details": details}
                runs.append({"state": state, "tags": [f"awaits:{key}"]})
            run_ids += await self._create(f"/deployments/{deployment}/create_flow_run/bulk", runs)
        return run_ids

    async def _create(self, path: str, runs: list[dict[str, Any]]) -> list[str]:
        found: dict[int, str] = {}
        while missing := [number for number in range(len(runs)) if number not in found]:
            answer = await self.api.request("POST", path, json=[runs[number] for number in missing])
            for number, one in zip(missing, answer["results"], strict=True):
                if one["status"] == "CREATED":  # else SQLite was locked, for it or for one before: once more
                    found[number] = one["flow_run_id"]
                elif not any(part in (one.get("error") or "") for part in ("locked", "closed transaction")):
                    raise RuntimeError(f"a run was not created: {one}")
        return [found[number] for number in range(len(runs))]

    async def forms(self, pairs: Sequence[tuple[str, str]]) -> None:
        """What the answers of parked runs must look like, given run id and key."""
        for run_id, key in pairs:
            pause = pause_key(key, 1)
            body = {"key": schema_key(pause), "value": json.dumps(form(ANY_OBJECT, pause))}
            await self.api.request("POST", f"/flow_runs/{run_id}/input", json=body)

    @contextmanager
    def role(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        with (self.home / "roles.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *words], cwd=CHECKOUT, env=self.environ, stdout=log, stderr=log, start_new_session=True
            )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    async def ready(self, *roles: str) -> None:
        from services.operations.health import read_reports

        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            reports = await read_reports(self.redis)
            if set(roles) <= {report["role"] for report in reports if report["ready"]}:
                return
            await asyncio.sleep(0.2)
        raise RuntimeError(f"not ready after 90 s: {roles}; see {self.home}")

    async def lines(self, name: str, count: int, within: float = 120) -> list[float]:
        """The times that a flow has written down, once there are so many."""
        file = self.home / name
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            found = [float(line) for line in file.read_text().split()] if file.exists() else []
            if len(found) >= count:
                return found
            await asyncio.sleep(0.005)
        raise RuntimeError(f"the flow did not come to line {count} of {file}")


async def applied(bench: Bench, options: argparse.Namespace) -> None:
    """At ten a second, each to a run of its own."""
    keys = [f"a-{number}" for number in range(options.count)]
    runs = await bench.park(keys, suspended=False)
    await bench.forms(list(zip(runs, keys, strict=True)))
    await asyncio.sleep(CALM_SECONDS)
    # Of a server that has just started, the first answers take several times as long as any after them.
    warm = await bench.park([f"warm-{number}" for number in range(WARM_UP)], suspended=False)
    for run_id in warm:
        await bench.forms([(run_id, f"warm-{warm.index(run_id)}")])
        await bench.applied_ms(*await bench.publish(run_id=run_id))
    for way in ("by run id", "by key"):
        chosen = range(0, len(keys), 2) if way == "by run id" else range(1, len(keys), 2)
        sent = []
        for number in chosen:
            target = {"run_id": runs[number]} if way == "by run id" else {"key": keys[number]}
            sent.append(await bench.publish(**target))
            await asyncio.sleep(0.1)
        row(f"published to applied, {way}", [await bench.applied_ms(*one) for one in sent], "ms")


async def paused(bench: Bench, options: argparse.Namespace) -> None:
    """The next line of a flow that is paused."""
    await asyncio.gather(_rounds(bench, "sluice", options.count // 4), _rounds(bench, "plain", options.plain))


async def _rounds(bench: Bench, kind: str, rounds: int) -> None:
    name, key = f"paused-{kind}", f"p-{uuid.uuid4().hex[:6]}"
    call = f"f({str(bench.home / name)!r}, {key!r}, {rounds})"
    code = f"from benchmarks.flows_that_wait.flows import paused_{kind} as f; {call}"
    seen: set[str] = set()
    with bench.role("-c", code):
        taken = []
        for number in range(rounds):
            run_id = await _paused_run(bench, f"paused-{kind}", seen)
            if kind == "sluice":
                await asyncio.sleep(QUIET_SECONDS)
                _, at = await bench.publish(key=key)
            else:
                # As `resume_flow_run` does it; at a random moment of the ten seconds between two looks.
                await asyncio.sleep(10 * (number + 0.5) / rounds)
                at = time.time()
                await bench.api.request("POST", f"/flow_runs/{run_id}/resume", json={})
            taken.append((await bench.lines(name, number + 1))[number] - at)
    row(f"to the next line, paused, {'Sluice' if kind == 'sluice' else 'Prefect'}", [1000 * one for one in taken], "ms")


async def _paused_run(bench: Bench, flow: str, seen: set[str]) -> str:
    """The run of the flow, once it is in a paused state that was not ``seen`` before."""
    narrowed = {"flows": {"name": {"any_": [flow]}}, "flow_runs": {"state": {"type": {"any_": ["PAUSED"]}}}}
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for run in await bench.api.request("POST", "/flow_runs/filter", json=narrowed):
            if run["state"]["id"] not in seen:
                seen.add(run["state"]["id"])
                return str(run["id"])
        await asyncio.sleep(0.05)
    raise RuntimeError(f"no run of {flow} is paused")


async def suspended(bench: Bench, options: argparse.Namespace) -> None:
    """The next line of a flow that is suspended: under Sluice's executor, and served by Prefect's own runner."""
    for kind, role in (
        ("sluice", ("-m", "services.cli", "run", "executor")),
        ("plain", ("-c", "from benchmarks.flows_that_wait.flows import suspended_plain as f; f.serve(name='bench')")),
    ):
        count = options.plain if kind == "plain" else max(options.plain, options.count // 10)
        with bench.role(*role):
            if kind == "sluice":
                deployment = await bench.deployment("suspended_sluice")
                await bench.ready("executor")
            else:
                deployment = await _served(bench)
            taken = [await _suspended_once(bench, kind, deployment, number) for number in range(count)]
        row(f"to the next line, suspended, {'Sluice' if kind == 'sluice' else 'Prefect'}", taken, "ms")


async def _suspended_once(bench: Bench, kind: str, deployment: str, number: int) -> float:
    name, key = f"suspended-{kind}-{number}", f"s-{uuid.uuid4().hex[:8]}"
    body = {"parameters": {"path": str(bench.home / name), "key": key}, "state": {"type": "SCHEDULED"}}
    run = await bench.api.request("POST", f"/deployments/{deployment}/create_flow_run", json=body)
    async with asyncio.timeout(120):
        while (await bench.api.request("GET", f"/flow_runs/{run['id']}"))["state"]["type"] != "PAUSED":
            await asyncio.sleep(0.05)
    await asyncio.sleep(1)  # its process ends
    if kind == "sluice":
        _, at = await bench.publish(key=key)
    else:
        at = time.time()
        await bench.api.request("POST", f"/flow_runs/{run['id']}/resume", json={})
    return ((await bench.lines(name, 1))[0] - at) * 1000


async def _served(bench: Bench) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = await bench.api.request(
            "POST", "/deployments/filter", json={"flows": {"name": {"any_": ["suspended-plain"]}}}
        )
        if found:
            return str(found[0]["id"])
        await asyncio.sleep(0.2)
    raise RuntimeError("the flow was not served")


async def rate(bench: Bench, options: argparse.Namespace) -> None:
    """500 signals a minute."""
    keys = [f"r-{number}" for number in range(int(options.seconds * 500 / 60))]
    runs = await bench.park(keys, suspended=False)
    await bench.forms(list(zip(runs, keys, strict=True)))
    await asyncio.sleep(CALM_SECONDS)
    began, sent = time.monotonic(), []
    for number, key in enumerate(keys):
        sent.append(await bench.publish(key=key))
        await asyncio.sleep(max(0.0, began + (number + 1) * 60 / 500 - time.monotonic()))
    taken = [await bench.applied_ms(*one) for one in sent]
    row(f"500 a minute for {options.seconds:g} s, by key", taken, "ms")
    print(f"  late by more than 1 s: {sum(one > 1000 for one in taken)} of {len(taken)}")


async def scale(bench: Bench, options: argparse.Namespace) -> None:
    """Many suspended runs waiting at once."""
    resumer = next(p for p in psutil.process_iter(["cmdline"]) if _is_resumer(p, bench))
    before = resumer.memory_info().rss
    keys = [f"w-{number}" for number in range(options.waiting)]
    began = time.monotonic()
    runs = await bench.park(keys, suspended=True)
    print(f"  {len(runs)} suspended runs created in {time.monotonic() - began:.0f} s")
    while await bench.waits.count() < len(runs):
        await asyncio.sleep(0.2)
    print(f"  all of them heard of {time.monotonic() - began:.0f} s after the first was begun")
    chosen = list(range(0, len(keys), max(1, len(keys) // options.count)))[: options.count]
    await bench.forms([(runs[number], keys[number]) for number in chosen])
    print(f"  the server had stored their events {await bench.calm():.0f} s later")
    sent = []
    for number in chosen:
        sent.append(await bench.publish(key=keys[number]))
        await asyncio.sleep(0.1)
    taken = [await bench.applied_ms(*one) for one in sent]
    row(f"published to applied, by key, {len(runs)} waiting", taken, "ms")
    print(
        f"  memory of the resumer: {before / 2**20:.0f} MiB before, {resumer.memory_info().rss / 2**20:.0f} MiB after"
    )


def _is_resumer(process: psutil.Process, bench: Bench) -> bool:
    try:
        shown = "".join(process.cmdline())
        return shown == "sluice: resumer" and process.environ().get("SLUICE_HOME") == str(bench.home)
    except psutil.Error:
        return False


def row(what: str, values: list[float], unit: str) -> None:
    cuts = statistics.quantiles(values, n=100) if len(values) > 1 else [values[0]] * 99
    print(
        f"{what:<52} n={len(values):<5} p50 {cuts[49]:8.0f} {unit}  p90 {cuts[89]:8.0f}  p99 {cuts[98]:8.0f}"
        f"  max {max(values):8.0f}",
        flush=True,
    )


@asynccontextmanager
async def servers() -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-bench-")))
        valkey, redis_url = start_valkey(
            home / "valkey", claim_port(0, "a free port"), RedisSettings(), log_file=home / "valkey.log"
        )
        stack.callback(valkey.stop)
        prefect, url = start_prefect(home / "prefect", claim_port(0, "a free port"), log_file=home / "prefect.log")
        stack.callback(prefect.stop)
        os.environ["PREFECT_API_URL"] = url
        os.environ["PREFECT_HOME"] = str(home / "prefect-client")
        from services.prefect_api.client import connect as connect_prefect

        config = home / "sluice.yaml"
        config.write_text("sources: {}\nrules: []\n")
        environ = {
            **os.environ,
            "SLUICE_REDIS_URL": redis_url,
            "SLUICE_HOME": str(home),
            "SLUICE_CONFIG": str(config),
            "SLUICE_LOG__LEVEL": "warning",
            "SLUICE_EXECUTOR__DEPLOYMENTS": '["*"]',
        }
        redis = connect(redis_url, RedisSettings())
        stack.push_async_callback(redis.aclose)
        api = await stack.enter_async_context(connect_prefect())
        bench = Bench(redis, api, home, environ, psutil.Process(prefect.process.pid))
        for role in ("listeners", "resumer"):
            stack.enter_context(bench.role("-m", "services.cli", "run", role))
        await bench.ready("listeners", "resumer")
        yield bench


async def measure(options: argparse.Namespace) -> None:
    async with servers() as bench:
        for name in options.parts or PARTS:
            print(f"-- {name}", flush=True)
            await globals()[name](bench, options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"which of {', '.join(PARTS)}; all by default")
    parser.add_argument("--count", type=int, default=200, help="how many signals")
    parser.add_argument("--plain", type=int, default=8, help="how often plain Prefect is measured")
    parser.add_argument("--seconds", type=float, default=120, help="how long the steady rate lasts")
    parser.add_argument("--waiting", type=int, default=10_000, help="how many runs wait at once")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"there is no part {', '.join(sorted(unknown))}: there are {', '.join(PARTS)}")
    asyncio.run(measure(options))


if __name__ == "__main__":
    main()
