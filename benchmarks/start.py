"""From `sluice up` to ready, from Ctrl-C to the prompt, and what an idle installation takes, beside Prefect alone.

``python -m benchmarks.start [NAME ...] [--rounds N] [--idle SECONDS]``; the names: sluice, prefect. ``sluice`` is
`sluice up` with the default configuration; ``prefect`` is `prefect server start` and, once that answers, `flow.serve()`
of one flow until its deployment is registered. Each starts on a home of its own, first without and then with what the
start before has left. Processor seconds are those of all processes; they vary less with what else the machine does.
Memory is the proportional set size (what processes share counts once) of all processes after ``--idle`` seconds, and
the idle processor time is that of these seconds.

Goals on a quiet machine with two cores: the first start 6 s, later ones 4 s, the end 2 s; idle 400 MiB, and 2 % of a
core; `sluice status` 0.3 s.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import httpx
import psutil

from config.settings import CHECKOUT
from services.local.embedded_servers import claim_port

NAMES = ("sluice", "prefect")
COLUMNS = ("", "first s", "later s", "first CPU s", "later CPU s", "stop s", "idle MiB", "idle CPU %", "status s")
SERVE = "from prefect import flow\n@flow\ndef main(): pass\nmain.serve(name='bench')"


@dataclass
class Measured:
    seconds: float
    cpu_seconds: float
    stop_seconds: float = 0.0
    idle_mib: float = 0.0
    idle_cpu: float = 0.0
    status_seconds: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    """Memory by process, MiB."""


def family(pids: list[int]) -> list[psutil.Process]:
    heads = [psutil.Process(pid) for pid in pids]
    return heads + [child for head in heads for child in head.children(recursive=True)]


def cpu_seconds(pids: list[int]) -> float:
    """Of every process there is, and of those that have ended and were waited for."""
    total = 0.0
    for process in family(pids):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def memory(pids: list[int]) -> dict[str, float]:
    found: dict[str, float] = {}
    for process in family(pids):
        with suppress(psutil.NoSuchProcess):
            words = process.cmdline()
            name = " ".join(words[1:4] if "python" in words[0] else words[:1])[-40:]
            found[f"{process.pid} {name}"] = process.memory_full_info().pss / 2**20
    return found


def idle(pids: list[int], seconds: float, measured: Measured) -> None:
    if not seconds:
        return
    before = cpu_seconds(pids)
    time.sleep(seconds)
    measured.idle_cpu = 100 * (cpu_seconds(pids) - before) / seconds
    measured.parts = memory(pids)
    measured.idle_mib = sum(measured.parts.values())


def until(probe: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 300
    while not probe():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"it did not start; {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.02)


@contextmanager
def started(command: list[str], env: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=CHECKOUT, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def sluice(home: Path, seconds: float) -> Measured:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", "PREFECT_"))}
    env |= {f"SLUICE_PORTS__{name}": "0" for name in ("PREFECT", "REDIS", "API")}
    env["SLUICE_HOME"] = str(home / ".sluice")
    log = home / "sluice.log"
    began = time.monotonic()
    with started([sys.executable, "-m", "services.cli", "up"], env, log) as process:
        until(lambda: b"Sluice is ready." in log.read_bytes(), process, log)
        measured = Measured(time.monotonic() - began, cpu_seconds([process.pid]))
        asked = time.monotonic()
        subprocess.run(
            [sys.executable, "-m", "services.cli", "status"], cwd=CHECKOUT, env=env, check=True, capture_output=True
        )
        measured.status_seconds = time.monotonic() - asked
        idle([process.pid], seconds, measured)
        asked = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.wait(60)
        measured.stop_seconds = time.monotonic() - asked
    return measured


def prefect(home: Path, seconds: float) -> Measured:
    port = claim_port(0, "a free port")
    url = f"http://127.0.0.1:{port}/api"
    env = {name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", "PREFECT_"))}
    env |= {"PREFECT_HOME": str(home / "prefect"), "PREFECT_API_URL": url, "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    env["DO_NOT_TRACK"] = "1"
    server_log, log = home / "server.log", home / "serve.log"
    (home / "job.py").write_text(SERVE)
    began = time.monotonic()
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
    with started(command, env, server_log) as server:
        until(lambda: answers(f"{url}/health"), server, server_log)
        with started([sys.executable, str(home / "job.py")], env, log) as process:
            until(lambda: answers(f"{url}/deployments/name/main/bench"), process, log)
            pids = [server.pid, process.pid]
            measured = Measured(time.monotonic() - began, cpu_seconds(pids))
            idle(pids, seconds, measured)
            asked = time.monotonic()
            process.send_signal(signal.SIGINT)
            server.send_signal(signal.SIGINT)
            process.wait(60)
            server.wait(60)
            measured.stop_seconds = time.monotonic() - asked
    return measured


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which of {', '.join(NAMES)}; both by default")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is started on a new home")
    parser.add_argument("--idle", type=float, default=20, help="how long the idle installation is measured")
    options = parser.parse_args()
    unknown = set(options.names) - set(NAMES)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}: there are {', '.join(NAMES)}")
    print(" ".join(f"{column:>11}" for column in COLUMNS), flush=True)
    for name in options.names or NAMES:
        measure = globals()[name]
        first: list[Measured] = []
        later: list[Measured] = []
        for _ in range(options.rounds):
            with tempfile.TemporaryDirectory(prefix="sluice-bench-") as folder:
                first.append(measure(Path(folder), 0.0))
                later.append(measure(Path(folder), options.idle))
        numbers = [
            median(one.seconds for one in first),
            median(one.seconds for one in later),
            median(one.cpu_seconds for one in first),
            median(one.cpu_seconds for one in later),
            median(one.stop_seconds for one in later),
            median(one.idle_mib for one in later),
            median(one.idle_cpu for one in later),
            median(one.status_seconds for one in later),
        ]
        print(f"{name:>11} " + " ".join(f"{number:>11.2f}" for number in numbers), flush=True)
        for process, mib in later[-1].parts.items():
            print(f"{'':>11} {mib:>11.1f} MiB {process}", flush=True)


if __name__ == "__main__":
    main()
