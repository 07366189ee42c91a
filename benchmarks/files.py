"""Watched folders: latency, bursts, backlog, the cost of a steady tree, beside plain watchfiles and a polling loop.

``python -m benchmarks.files [latency|burst|backlog|lost ...] [--files N] [--backlog N] [--json]``. Everything
runs on a Valkey of its own, with append-only persistence, in a temporary directory on the disk of ``--directory``.

Goals: closed to journalled p50 at most 30 ms and p99 at most 100 ms; a burst of 10,000 files at 5,000 a second; a
backlog of 100,000 at 10,000 a second in less than 150 MiB; a steady tree of 100,000 for less than 2 % of a core.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from config.settings import CHECKOUT, FileSettings, JournalSettings, LogSettings, RedisSettings
from config.sources import FilesSource
from services.local.embedded_servers import claim_port, start_valkey

Row = dict[str, Any]

WRITER = """
import os, sys, time
box, count, pause, log, mode = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4], sys.argv[5]
with open(log, "w") as times:
    for number in range(count):
        name = f"{box}/{number}.csv"
        with open(name + ".tmp" if mode == "rename" else name, "w") as file:
            file.write("a,b\\n1,2\\n")
        if mode == "rename":
            os.rename(name + ".tmp", name)
        times.write(f"{number}.csv {time.time()}\\n")
        if pause: time.sleep(pause)
"""


# Observers: each is a process that notes what it found, and when, as lines `NAME TIME`. ------------------------------


async def _sluice(box: Path, log: Path, url: str) -> None:
    from config.logs import configure_logging
    from services.listeners.files.listener import FilesListener
    from services.store.connection import connect
    from services.store.files.ledger import Ledger

    del log  # the journal is its log
    configure_logging(LogSettings(level="error"))
    settings = FileSettings()
    ledger = Ledger(connect(url, RedisSettings()), JournalSettings(), settings)
    await FilesListener(name="inbox", source=FilesSource(path=box), settings=settings, ledger=ledger).run()


async def _awatch(box: Path, log: Path, url: str) -> None:
    from watchfiles import Change, awatch

    del url
    with log.open("w", buffering=1) as found:
        async for changes in awatch(box):
            now = time.time()
            for change, path in changes:
                if change is not Change.deleted and path.endswith(".csv"):
                    found.write(f"{path.removeprefix(f'{box}/')} {now}\n")


async def _polling(box: Path, log: Path, url: str) -> None:
    del url
    seen: set[str] = set()
    with log.open("w", buffering=1) as found:
        while True:
            now = time.time()
            for directory, _, names in os.walk(box):
                for name in names:
                    path = f"{directory}/{name}".removeprefix(f"{box}/")
                    if name.endswith(".csv") and path not in seen:
                        seen.add(path)
                        found.write(f"{path} {now}\n")
            await asyncio.sleep(5)


OBSERVERS = {"sluice": _sluice, "watchfiles.awatch": _awatch, "polling 5 s": _polling}


class Bench:
    """A Valkey, a directory, and observers as processes."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.number = 0
        self.server, self.url = start_valkey(
            home / "valkey", claim_port(0, "a free port"), RedisSettings(), log_file=home / "valkey.log"
        )

    def box(self) -> Path:
        """A new empty folder, and an empty journal."""
        self.number += 1
        path = self.home / f"box-{self.number}"
        path.mkdir()
        self.redis("FLUSHALL")
        return path

    def redis(self, *command: str) -> Any:
        import redis

        with redis.Redis.from_url(self.url) as client:
            return client.execute_command(*command)

    @contextmanager
    def observer(self, name: str, box: Path) -> Iterator[psutil.Process]:
        """An observer that has begun to observe."""
        command = [sys.executable, "-m", "benchmarks.files", "--observe", name, str(box), str(self.log(box)), self.url]
        process = subprocess.Popen(command, cwd=CHECKOUT)
        try:
            canary = box / "canary.csv"
            wait(lambda: self._sees(name, box, canary), 60, f"{name} to begin")
            yield psutil.Process(process.pid)
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()

    def log(self, box: Path) -> Path:
        return self.home / f"{box.name}.log"

    def found(self, name: str, box: Path) -> dict[str, float]:
        """What the observer has found, and when first."""
        if name == "sluice":
            entries = self.redis("XRANGE", "sluice:journal", "-", "+")
            return {
                json.loads(fields[b"event"])["subject"]: int(position.split(b"-")[0]) / 1000
                for position, fields in entries
            }
        times: dict[str, float] = {}
        if self.log(box).exists():
            for line in self.log(box).read_text().splitlines():
                path, _, at = line.rpartition(" ")
                times.setdefault(path, float(at))
        return times

    def count(self, name: str, box: Path) -> int:
        return int(self.redis("XLEN", "sluice:journal")) if name == "sluice" else len(self.found(name, box))

    def _sees(self, name: str, box: Path, canary: Path) -> bool:
        if canary.name in self.found(name, box):
            return True
        canary.write_text(str(time.time()))
        time.sleep(0.1)
        return False


def wait(probe: Callable[[], bool], seconds: float, what: str) -> bool:
    deadline = time.monotonic() + seconds
    while not probe():
        if time.monotonic() > deadline:
            print(f"  ({what}: not within {seconds:.0f} s)", file=sys.stderr)
            return False
        time.sleep(0.02)
    return True


def write(box: Path, count: int, *, pause: float = 0.0, mode: str = "close") -> dict[str, float]:
    """Let another process write files; answers when each was complete."""
    log = box.parent / f"{box.name}.written"
    subprocess.run([sys.executable, "-c", WRITER, str(box), str(count), str(pause), str(log), mode], check=True)
    return {name: float(at) for name, at in (line.split() for line in log.read_text().splitlines())}


def latency(bench: Bench, files: int) -> Iterator[Row]:
    """Closed, or renamed in, to found: one file at a time, far enough apart that nobody gathers several."""
    for name in OBSERVERS:
        for mode in ("close", "rename"):
            box = bench.box()
            with bench.observer(name, box):
                written = write(box, files, pause=0.237, mode=mode)
                wait(lambda: bench.count(name, box) > files, 15, f"{name}: all files")  # noqa: B023
                found = bench.found(name, box)
            times = sorted((found[file] - at) * 1000 for file, at in written.items() if file in found)
            yield {
                "measure": f"latency, {mode}",
                "of": name,
                "p50 ms": round(statistics.median(times), 1),
                "p99 ms": round(times[int(len(times) * 0.99) - 1], 1),
                "found": f"{len(times)} of {files}",
            }


def burst(bench: Bench, files: int) -> Iterator[Row]:
    """Many files at once: renamed in one after the other, since writing them takes longer than finding them."""
    box, ready = bench.box(), bench.home / "ready"
    ready.mkdir()
    write(ready, files)
    with bench.observer("sluice", box):
        began = time.time()
        for number in range(files):
            (ready / f"{number}.csv").rename(box / f"{number}.csv")
        dropped = time.time()
        complete = wait(lambda: bench.count("sluice", box) > files, 120, "all files")
        found = bench.found("sluice", box)
    last = max(found.values())
    yield {
        "measure": f"burst of {files}",
        "of": "sluice",
        "files/s": round(files / (last - began)),
        "dropped at files/s": round(files / (dropped - began)),
        "found": f"{len(found) - 1} of {files}" + ("" if complete else " (late)"),
    }


def fill(box: Path, files: int) -> None:
    for number in range(files):
        directory = box / f"{number // 1000:04}"
        if number % 1000 == 0:
            directory.mkdir()
        (directory / f"{number}.csv").write_text("a,b\n1,2\n")


def backlog(bench: Bench, files: int) -> Iterator[Row]:
    """Files that were there before, then the same tree at rest."""
    box = bench.box()
    fill(box, files)
    with bench.observer("sluice", box) as process:
        wait(lambda: bench.count("sluice", box) > files, 300, "all files")
        times = [int(entry[0].split(b"-")[0]) / 1000 for entry in bench.redis("XRANGE", "sluice:journal", "-", "+")]
        resident = process.memory_info().rss
        high = next(
            int(line.split()[1]) / 1024
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
            if line.startswith("VmHWM")
        )
        yield {
            "measure": f"backlog of {files}",
            "of": "sluice",
            "files/s": round(len(times) / (max(times) - min(times))),
            "found": f"{len(times) - 1} of {files}",
            "resident MiB": round(resident / 2**20),
            "highest MiB": round(high),
        }
        time.sleep(5)
        seconds = 65
        before = process.cpu_times()
        time.sleep(seconds)
        after = process.cpu_times()
        spent = after.user + after.system - before.user - before.system
        yield {"measure": f"steady tree of {files}", "of": "sluice", "% of a core": round(100 * spent / seconds, 2)}


def lost(bench: Bench, files: int) -> Iterator[Row]:
    """What each observer misses: while it is stopped, in new directories, and after its folder was made again."""
    cases = {"stopped": _stopped, "new directories": _directories, "folder made again": _root}
    for name in OBSERVERS:
        for case, act in cases.items():
            box = bench.box()
            with bench.observer(name, box) as process:
                expected = act(box, process, files)
                wait(lambda: expected <= bench.found(name, box).keys(), 45, f"{name}, {case}")  # noqa: B023
                missed = len(expected - bench.found(name, box).keys())
            yield {"measure": f"lost, {case}", "of": name, "lost": f"{missed} of {len(expected)}"}


def _stopped(box: Path, process: psutil.Process, files: int) -> set[str]:
    process.suspend()
    write(box, files)
    process.resume()
    return {f"{number}.csv" for number in range(files)}


def _directories(box: Path, process: psutil.Process, files: int) -> set[str]:
    del process, files
    for number in range(50):
        (box / str(number)).mkdir()
        for index in range(20):
            (box / str(number) / f"{index}.csv").write_text("x")
    return {f"{number}/{index}.csv" for number in range(50) for index in range(20)}


def _root(box: Path, process: psutil.Process, files: int) -> set[str]:
    del process, files
    shutil.rmtree(box)
    time.sleep(0.2)
    box.mkdir()
    for number in range(100):
        (box / f"new-{number}.csv").write_text("x")
        time.sleep(0.01)
    return {f"new-{number}.csv" for number in range(100)}


MEASURES: dict[str, Callable[[Bench, argparse.Namespace], Iterator[Row]]] = {
    "latency": lambda bench, options: latency(bench, options.latency_files),
    "burst": lambda bench, options: burst(bench, options.files),
    "backlog": lambda bench, options: backlog(bench, options.backlog),
    "lost": lambda bench, options: lost(bench, options.files),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("measures", nargs="*", default=list(MEASURES), metavar="|".join(MEASURES))
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--latency-files", type=int, default=100)
    parser.add_argument("--backlog", type=int, default=100_000)
    parser.add_argument("--directory", type=Path, default=None, help="where to work: its disk is measured")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--observe", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.observe:
        name, box, log, url = options.observe
        asyncio.run(OBSERVERS[name](Path(box), Path(log), url))
        return
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="sluice-bench-", dir=options.directory) as home:
        bench = Bench(Path(home))
        try:
            for name in options.measures:
                for row in MEASURES[name](bench, options):
                    rows.append(row)
                    if not options.json:
                        print(_line(row), flush=True)
        finally:
            bench.server.stop()
    if options.json:
        print(json.dumps(rows))


def _line(row: Row) -> str:
    values = " · ".join(f"{name} {value}" for name, value in row.items() if name not in {"measure", "of"})
    return f"| {row['measure']} | {row['of']} | {values} |"


if __name__ == "__main__":
    main()
