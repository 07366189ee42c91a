"""Runs from created to the first line of the flow, how many a minute, and in how much memory, beside Prefect's own.

``python -m benchmarks.executor [NAME ...] [--count N] [--plain N] [--burst N] [--plain-burst N] [--seconds S]
[--scheduled N]``. Each
executor has the same limit of four runs and a Prefect server on SQLite of its own; they are measured one after the
other. The names: sluice, serve, serve-1s, worker, worker-1s, where 1s is a poll every second instead of the default.

Goals: created to first line p50 at most 0.25 s and p99 at most 0.6 s, one at a time; a burst at least 5 times as fast
as `serve`, and none lost; idle at most 200 MiB in all and under 1 % CPU; at most 40 MiB for each running flow.

With ``--scheduled N``, also how late N runs of an interval schedule of Sluice's begin (goal: within 1 s of their time).

Below the table stands where the time of one of Sluice's runs goes, from what Prefect and RQ keep of it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

import httpx
import psutil
from rq.job import Job
from rq.serializers import JSONSerializer

from config.settings import CHECKOUT, RedisSettings
from services.local.embedded_servers import claim_port, start_prefect, start_valkey
from services.store.connection import connect_sync

LIMIT = 4
POOL = "bench"
SCHEDULE_SECONDS = 2
FIRST = (
    4  # runs of a schedule that is new: Prefect plans them, and the executor hears of them, when they are due already
)
FLOW = """
import time
from prefect import flow

@flow
def main(out: str, seconds: float = 0):
    with open(out, "w") as file:
        file.write(repr(time.time()))
    time.sleep(seconds)
"""
SERVE = "from job import main; main.serve(name='bench', limit={limit})"
NAMES = ("sluice", "serve", "serve-1s", "worker", "worker-1s")
COLUMNS = ("executor", "p50 s", "p99 s", "runs/min", "lost", "idle MiB", "idle CPU %", "MiB a run")


class Rival:
    """One executor on a server of its own."""

    def __init__(self, name: str, folder: Path, client: httpx.Client, environ: dict[str, str]) -> None:
        self.name = name
        self.folder = folder
        self.client = client
        self.environ = environ
        self.number = 0
        self.deployment = ""
        self.steps: list[dict[str, float]] = []

    def post(self, path: str, /, **body: object) -> dict:
        """What is posted may arrive twice: SQLite is busy at times, for a request's whole patience even."""
        answer = None
        for _ in range(100):
            try:
                answer = self.client.post(path, json=body)
            except httpx.TimeoutException:
                continue
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(0.1)
        if answer is None:
            raise RuntimeError(f"no answer to {path}")
        answer.raise_for_status()
        return answer.json()

    def register(self) -> None:
        flow = self.post("/flows/", name="main")["id"]
        body = {"name": "bench", "flow_id": flow, "entrypoint": "job.py:main", "path": str(self.folder)}
        if self.name.startswith("worker"):
            self.post("/work_pools/", name=POOL, type="process")
            body["work_pool_name"] = POOL
        if not self.name.startswith("serve"):  # which registers its own
            self.deployment = self.post("/deployments/", **body)["id"]

    def command(self) -> list[str]:
        match self.name.partition("-")[0]:
            case "sluice":
                return [sys.executable, "-m", "services.cli", "run", "executor"]
            case "serve":
                return [sys.executable, "-c", SERVE.format(limit=LIMIT)]
            case _:
                return [sys.executable, "-m", "prefect", "worker", "start", "-p", POOL, "--limit", str(LIMIT)]

    def wait_registered(self) -> None:
        deadline = time.monotonic() + 60
        while not self.deployment:
            answer = self.client.get("/deployments/name/main/bench")
            if answer.status_code == httpx.codes.OK:
                self.deployment = answer.json()["id"]
            elif time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not register its deployment")
            time.sleep(0.1)

    def create(self, *, seconds: float = 0) -> tuple[dict, Path, float]:
        """A run; answers it, the file that its first line writes, and when Prefect had it."""
        self.number += 1
        out = self.folder / f"{self.number}.out"
        run = self.post(
            f"/deployments/{self.deployment}/create_flow_run",
            parameters={"out": str(out), "seconds": seconds},
            idempotency_key=str(self.number),
        )
        return run, out, time.time()

    def latency(self) -> float:
        """Created to first line, with nothing else to do; then the run's end is waited for."""
        run, out, at = self.create()
        first = _first_line(out, within_seconds=120)
        self.wait_final([run["id"]], within_seconds=120)
        time.sleep(0.5)
        if self.name == "sluice":
            self.steps.append(self.profile(run, first))
        return first - at

    def profile(self, run: dict, first: float) -> dict[str, float]:
        """When the run came to each step, in seconds since the epoch."""
        states = self.client.get("/flow_run_states/", params={"flow_run_id": run["id"]}).json()
        at = {state["name"]: datetime.fromisoformat(state["timestamp"]).timestamp() for state in states}
        with connect_sync(self.environ["SLUICE_REDIS_URL"], RedisSettings()) as redis:
            for _ in range(100):  # the process of the run ends after the run
                job = Job.fetch(run["state_id"], connection=redis, serializer=JSONSerializer)
                outcome = job.return_value() or {}
                if outcome and job.ended_at is not None:
                    break
                time.sleep(0.05)
        if "started_at" not in outcome or job.ended_at is None:
            return {}
        return {
            "created": at["Scheduled"],
            "queued": job.enqueued_at.timestamp(),
            "forked": outcome["taken_at"],
            "claimed": outcome["claimed_at"],
            "loaded": outcome["started_at"],
            "running": at["Running"],
            "first line": first,
            "completed": at["Completed"],
            "process gone": job.ended_at.timestamp(),
        }

    def lateness(self, count: int) -> list[float]:
        """By how many seconds so many runs of a schedule entered Running after their time, in order of size."""
        flow = self.post("/flows/", name="main")["id"]
        body = {
            "name": "scheduled",
            "flow_id": flow,
            "entrypoint": "job.py:main",
            "path": str(self.folder),
            "parameters": {"out": os.devnull},
            "schedules": [{"schedule": {"interval": SCHEDULE_SECONDS}, "active": True}],
        }
        deployment = self.post("/deployments/", **body)["id"]
        wanted = {
            "deployments": {"id": {"any_": [deployment]}},
            "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
        }
        runs: list[dict] = []
        deadline = time.monotonic() + 120 + count * SCHEDULE_SECONDS * 2
        while len(runs) < count + FIRST and time.monotonic() < deadline:
            time.sleep(1)
            runs = self.post("/flow_runs/filter", sort="EXPECTED_START_TIME_ASC", **wanted)
        self.client.delete(f"/deployments/{deployment}")
        at = [
            [datetime.fromisoformat(run[moment]) for moment in ("expected_start_time", "start_time")]
            for run in runs[FIRST:]
        ]
        return sorted((began - planned).total_seconds() for planned, began in at)

    def burst(self, count: int) -> tuple[float, int]:
        """Runs a minute when ``count`` are created at once, and how many never completed."""
        began = time.time()
        runs = [self.create()[0]["id"] for _ in range(count)]
        completed = self.wait_final(runs, within_seconds=30 + count * 10)
        return count / (time.time() - began) * 60, count - completed

    def wait_final(self, run_ids: list[str], *, within_seconds: float) -> int:
        """How many completed, once all have ended."""
        deadline = time.monotonic() + within_seconds
        open_runs, completed = set(run_ids), 0
        while open_runs and time.monotonic() < deadline:
            for start in range(0, len(run_ids), 200):
                ids = [run_id for run_id in run_ids[start : start + 200] if run_id in open_runs]
                body = {"id": {"any_": ids}, "state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED"]}}}
                for run in self.post("/flow_runs/filter", flow_runs=body) if ids else []:
                    open_runs.discard(run["id"])
                    completed += run["state_type"] == "COMPLETED"
            time.sleep(0.05 if len(run_ids) == 1 else 0.5)
        return completed


def _first_line(out: Path, *, within_seconds: float) -> float:
    deadline = time.monotonic() + within_seconds
    while time.monotonic() < deadline:
        if out.exists() and (text := out.read_text()):
            return float(text)
        time.sleep(0.005)
    raise RuntimeError(f"no first line after {within_seconds:g} s")


def _memory_mib(process: psutil.Process) -> float:
    total = 0
    for member in (process, *process.children(recursive=True)):
        try:
            total += member.memory_full_info().pss
        except psutil.Error:
            continue
    return total / 1024 / 1024


def _cpu_seconds(process: psutil.Process) -> float:
    return sum(sum(member.cpu_times()[:2]) for member in (process, *process.children(recursive=True)))


@contextmanager
def rival(name: str) -> Iterator[tuple[Rival, psutil.Process]]:
    """The executor, warm: its first run is over."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-bench-")))
        (home / "job.py").write_text(FLOW)
        server, url = start_prefect(home / "prefect", claim_port(0, "a free port"), log_file=home / "prefect.log")
        stack.callback(server.stop)
        port = claim_port(0, "a free port")
        valkey, redis_url = start_valkey(home / "valkey", port, RedisSettings(), log_file=home / "valkey.log")
        stack.callback(valkey.stop)
        environ = {
            **os.environ,
            "PREFECT_API_URL": url,
            "PREFECT_HOME": str(home / "client"),
            "DO_NOT_TRACK": "1",
            "PREFECT_LOGGING_TO_CONSOLE_ENABLED": "false",
            "SLUICE_REDIS_URL": redis_url,
            "SLUICE_HOME": str(home / "sluice"),
            "SLUICE_EXECUTOR__SLOTS": str(LIMIT),
            "SLUICE_LOG__LEVEL": "warning",
            "SLUICE_EXECUTOR__DEPLOYMENTS": '["*"]',
        }
        if name.endswith("-1s"):
            environ |= {"PREFECT_RUNNER_POLL_FREQUENCY": "1", "PREFECT_WORKER_QUERY_SECONDS": "1"}
        client = stack.enter_context(httpx.Client(base_url=url, timeout=60))
        subject = Rival(name, home, client, environ)
        subject.register()
        output = stack.enter_context((home / "executor.log").open("wb"))
        process = subprocess.Popen(
            subject.command(),
            cwd=CHECKOUT if name == "sluice" else home,
            env=environ,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        stack.callback(process.wait)
        stack.callback(process.terminate)
        subject.wait_registered()
        subject.latency()
        yield subject, psutil.Process(process.pid)


def measure(name: str, options: argparse.Namespace) -> tuple[dict[str, str], list[dict[str, float]]]:
    """One row, and the steps of each run that was measured alone."""
    ours = name == "sluice"
    with rival(name) as (subject, process):
        time.sleep(3)
        idle, cpu = _memory_mib(process), _cpu_seconds(process)
        time.sleep(options.seconds)
        load = (_cpu_seconds(process) - cpu) / options.seconds * 100
        latencies = sorted(subject.latency() for _ in range(options.count if ours else options.plain))
        sleepers = [subject.create(seconds=5 if ours else 20) for _ in range(LIMIT)]
        for _, out, _ in sleepers:
            _first_line(out, within_seconds=120)
        each = (_memory_mib(process) - idle) / LIMIT
        subject.wait_final([run["id"] for run, _, _ in sleepers], within_seconds=120)
        late = subject.lateness(options.scheduled) if ours and options.scheduled else []
        rate, lost = subject.burst(options.burst if ours else options.plain_burst)
        steps = [run for run in subject.steps[1:] if run]
    row = {
        "executor": name,
        "p50 s": f"{statistics.median(latencies):.2f}",
        "p99 s": f"{latencies[min(len(latencies) - 1, int(len(latencies) * 0.99))]:.2f}",
        "runs/min": f"{rate:.0f}",
        "lost": str(lost),
        "idle MiB": f"{idle:.0f}",
        "idle CPU %": f"{load:.1f}",
        "MiB a run": f"{each:.0f}",
    }
    if late:
        print(f"{len(late)} scheduled runs late by p50 {statistics.median(late):.2f} s, at most {late[-1]:.2f} s")
    return row, steps


def print_profile(steps: list[dict[str, float]]) -> None:
    """The medians of the time from one step to the next, and from the first."""
    print("\n| step | ms since the step before | ms since created |\n| --- | --- | --- |")
    before = "created"
    for step in list(steps[0])[1:]:
        since_before = statistics.median(run[step] - run[before] for run in steps) * 1000
        since_created = statistics.median(run[step] - run["created"] for run in steps) * 1000
        print(f"| {step} | {since_before:.0f} | {since_created:.0f} |")
        before = step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which of {', '.join(NAMES)}; all by default")
    parser.add_argument("--count", type=int, default=100, help="how often Sluice's latency is measured")
    parser.add_argument("--plain", type=int, default=10, help="how often Prefect's is")
    parser.add_argument("--burst", type=int, default=200, help="how many runs at once for Sluice")
    parser.add_argument("--plain-burst", type=int, default=24, help="how many at once for Prefect")
    parser.add_argument("--seconds", type=float, default=20, help="how long it is watched idle")
    parser.add_argument(
        "--scheduled", type=int, default=0, help="for how many runs of a schedule of Sluice's, up to 90"
    )
    options = parser.parse_args()
    unknown = set(options.names) - set(NAMES)
    if unknown:
        parser.error(f"there is no executor {', '.join(sorted(unknown))}: there are {', '.join(NAMES)}")
    print(f"| {' | '.join(COLUMNS)} |")
    print(f"|{'|'.join(' --- ' for _ in COLUMNS)}|")
    profile: list[dict[str, float]] = []
    try:
        for name in options.names or NAMES:
            row, steps = measure(name, options)
            profile = profile or steps
            print(f"| {' | '.join(row[column] for column in COLUMNS)} |", flush=True)
    finally:  # Ctrl-C too: what was measured is shown
        if profile:
            print_profile(profile)


if __name__ == "__main__":
    main()
