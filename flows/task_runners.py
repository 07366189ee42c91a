"""Four ways to run the same tasks, measured side by side: one after the other, threads, asyncio, processes.

Needs nothing; takes some seconds. The table on the run's page says what each is good for on this machine.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

from prefect import State, flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed
from prefect.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner

from sluice import run_name


@task(cache_policy=NO_CACHE)
def wait_for_network(seconds: float) -> None:
    """Wait for somebody else: the processor is free meanwhile."""
    time.sleep(seconds)


@task(cache_policy=NO_CACHE)
async def wait_for_network_async(seconds: float) -> None:
    """The same, for asyncio."""
    await asyncio.sleep(seconds)


@task(cache_policy=NO_CACHE)
def compute(rounds: int) -> int:
    """Keep a processor busy in Python."""
    return sum(number * number for number in range(rounds))


@flow(name="task-runners-submit", flow_run_name="{count} tasks: {work}")
def _submitted(work: str, count: int, size: float) -> None:
    """``submit`` hands a task to the flow's task runner and returns a future at once."""
    futures = [wait_for_network.submit(size) if work == "waits" else compute.submit(int(size)) for _ in range(count)]
    for future in futures:
        future.result()


@flow(name="task-runners-in-order", flow_run_name="{count} tasks: {work}")
def _in_order(work: str, count: int, size: float) -> None:
    """Plain calls: one after the other, easy to follow in a debugger."""
    for _ in range(count):
        if work == "waits":
            wait_for_network(size)
        else:
            compute(int(size))


@flow(name="task-runners-async", flow_run_name="{count} tasks: {work}")
async def _asynchronous(work: str, count: int, size: float) -> None:
    """One thread for many tasks that wait; one that computes holds the others up."""
    if work == "waits":
        await asyncio.gather(*(wait_for_network_async(size) for _ in range(count)))
    else:
        for _ in range(count):
            compute(int(size))


@flow(name="task-runners", flow_run_name=run_name("task runners, {count} tasks"))
def task_runners(count: int = 8, wait_seconds: float = 0.5, rounds: int = 1_000_000) -> State[list[dict[str, Any]]]:
    """Run ``count`` tasks that wait, and ``count`` that compute, in each of four ways, and publish the seconds.

    Needs nothing. Threads and asyncio are for tasks that wait, processes for tasks that compute in Python.
    """
    ways: dict[str, Callable[[str, int, float], Any]] = {
        "in order": _in_order,
        "threads": _submitted.with_options(task_runner=ThreadPoolTaskRunner(max_workers=count)),  # type: ignore[arg-type]
        "asyncio": lambda *given: asyncio.run(_asynchronous(*given)),
        "processes": _submitted.with_options(task_runner=ProcessPoolTaskRunner(max_workers=os.cpu_count())),  # type: ignore[arg-type]
    }
    table = []
    for name, run in ways.items():
        row: dict[str, Any] = {"way": name}
        for work, size in (("waits", wait_seconds), ("computes", rounds)):
            started = time.perf_counter()
            run(work, count, size)
            row[f"{work}, s"] = round(time.perf_counter() - started, 2)
        table.append(row)
    create_table_artifact(
        table, key="task-runners", description=f"{count} tasks in each way, on {os.cpu_count()} cores"
    )
    return Completed(message=f"{len(table)} ways measured", data=table)


if __name__ == "__main__":
    task_runners()
