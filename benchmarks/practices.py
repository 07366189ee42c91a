"""What the practices of docs/flows.md save, side by side in one run: ``python -m benchmarks.practices``.

Runs the flows `task-runners` and `batches-and-caching` in turns against a Prefect server of its own, and prints the
median of each way and its ratio to the plain one: as two tables of Markdown. The first flow also makes tasks that do
nothing, which is what a task costs.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from services.local.embedded_servers import claim_port, start_prefect

EMPTY_TASKS = 50
Rounds = Mapping[str, Sequence[Mapping[str, Any]]]


def task_cost() -> dict[str, float]:
    """Milliseconds for a task that does nothing: called, and submitted to threads."""
    from prefect import flow, task
    from prefect.cache_policies import NO_CACHE
    from prefect.futures import wait

    @task(cache_policy=NO_CACHE)
    def nothing() -> None:
        pass

    @flow(name="task-cost")
    def calls(*, submitted: bool) -> float:
        started = time.perf_counter()
        if submitted:
            wait([nothing.submit() for _ in range(EMPTY_TASKS)])
        else:
            for _ in range(EMPTY_TASKS):
                nothing()
        return 1000 * (time.perf_counter() - started) / EMPTY_TASKS

    return {"called": calls(submitted=False), "submitted": calls(submitted=True)}


def by_way(tables: Sequence[Sequence[Mapping[str, Any]]]) -> Rounds:
    """The rows of all rounds, by their way, in the order of the first round."""
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for table in tables:
        for row in table:
            found[row["way"]].append(row)
    return found


def times_as_fast(rounds: Rounds, column: str) -> dict[str, str]:
    """How many times as fast as the first way each is, by the medians of all rounds."""
    middle = {way: median(row[column] for row in rows) for way, rows in rounds.items()}
    plain = next(iter(middle.values()))
    return {way: f"{plain / max(value, 1e-3):.1f}" for way, value in middle.items()}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for row in (head, ["---", *["---:"] * (len(head) - 1)], *rows):
        print(f"| {' | '.join(row)} |")
    print()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--wait-seconds", type=float, default=0.5)
    parser.add_argument("--loops", type=int, default=3_000_000, help="of a task that computes")
    parser.add_argument("--rows", type=int, default=200_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        server, url = start_prefect(home, claim_port(0, "a free port"), log_file=home / "server.log")
        os.environ |= {"PREFECT_API_URL": url, "PREFECT_HOME": str(home / "client"), "PREFECT_LOGGING_LEVEL": "ERROR"}
        try:
            measure(given)
        finally:
            server.stop()


def measure(given: argparse.Namespace) -> None:
    """Both flows, one after the other in each round."""
    from flows.batches_and_caching import batches_and_caching
    from flows.task_runners import task_runners

    logging.getLogger("prefect").setLevel(logging.ERROR)
    costs, runners, batches = [], [], []
    for _ in range(given.rounds):
        costs.append(task_cost())
        runners.append(task_runners(given.tasks, given.wait_seconds, given.loops))
        batches.append(batches_and_caching(given.rows))
    print(f"{given.rounds} rounds on {os.cpu_count()} cores, load {os.getloadavg()[0]:.0f}; medians\n")
    print(f"{given.tasks} tasks that wait {given.wait_seconds:g} s, and {given.tasks} that loop {given.loops} times\n")
    waiting, computing = (times_as_fast(by_way(runners), column) for column in ("waits, s", "computes, s"))
    seconds = by_way(runners)
    table(
        ["way", "waiting, s", "times as fast", "computing, s", "times as fast"],
        [
            [
                way,
                f"{median(row['waits, s'] for row in rows):.2f}",
                waiting[way],
                f"{median(row['computes, s'] for row in rows):.2f}",
                computing[way],
            ]
            for way, rows in seconds.items()
        ],
    )
    middle = {way: median(cost[way] for cost in costs) for way in costs[0]}
    print(f"An empty task takes {middle['called']:.0f} ms called, {middle['submitted']:.0f} ms submitted.\n")
    print(f"{given.rows} rows of a CSV file, added up\n")
    fast, ways = times_as_fast(by_way(batches), "seconds"), by_way(batches)
    table(
        ["way", "s", "times as fast", "peak MiB"],
        [
            [
                way,
                f"{median(row['seconds'] for row in rows):.2f}",
                fast[way],
                f"{median(row['peak MiB'] for row in rows):.1f}",
            ]
            for way, rows in ways.items()
        ],
    )


if __name__ == "__main__":
    main()
