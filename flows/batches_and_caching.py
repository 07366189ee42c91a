"""A large input three ways: read as a whole, streamed in batches, and not read again because it is known.

Needs nothing: it writes its own file. The table on the run's page has the seconds and the peak of memory of each.
"""

from __future__ import annotations

import csv
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from prefect import State, flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.context import TaskRunContext
from prefect.states import Completed

from sluice import run_name


def file_version(_context: TaskRunContext, parameters: Mapping[str, Any]) -> str:
    """The cache key: another one as soon as the file is written to or replaced."""
    path = Path(parameters["path"])
    found = path.stat()
    return f"batches:{path}:{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"


def rows(path: Path) -> Iterator[dict[str, str]]:
    """The rows one by one."""
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def batches(path: Path, size: int) -> Iterator[list[dict[str, str]]]:
    """The rows, ``size`` at a time; only one batch is in memory."""
    source = rows(path)
    while batch := list(islice(source, size)):
        yield batch


@task(cache_policy=NO_CACHE)
def whole(path: Path) -> float:
    """All rows at once: simple, and right for what surely fits."""
    return sum(float(row["amount"]) for row in list(rows(path)))


@task(cache_policy=NO_CACHE)
def streamed(path: Path, size: int = 1000) -> float:
    """A batch at a time, as a database takes them: memory does not grow with the file."""
    return sum(sum(float(row["amount"]) for row in batch) for batch in batches(path, size))


@task(persist_result=True, cache_key_fn=file_version, cache_expiration=timedelta(days=7))
def cached(path: Path) -> float:
    """Once for each version of the file, whichever run asks; the result is kept for a week."""
    return sum(float(row["amount"]) for row in rows(path))


def measured(what: str, work: Callable[[Path], float], path: Path, *, traced: Any = None) -> dict[str, Any]:
    """What it gave, how long it took, and its peak of memory in Python, in a second call (of ``traced``).

    Two calls, since tracing makes Python slower.
    """
    started = time.perf_counter()
    total = work(path)
    seconds = time.perf_counter() - started
    tracemalloc.start()
    (traced or work)(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return {"way": what, "seconds": round(seconds, 3), "peak MiB": round(peak / 1024**2, 2), "total": total}


@flow(name="batches-and-caching", flow_run_name=run_name("batches and caching, {count} rows"))
def batches_and_caching(count: int = 100_000) -> State[list[dict[str, Any]]]:
    """Add up ``count`` rows of a file as a whole, in batches, and twice through the cache; publish what each costs.

    Needs nothing but room for the file.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "amounts.csv"
        path.write_text("id,amount\n" + "".join(f"{number},{number % 100}\n" for number in range(count)), "utf-8")
        table = [
            measured("whole", whole, path),
            measured("in batches of 1000", streamed, path),
            measured("row by row, into the cache", cached, path, traced=cached.fn),
            measured("from the cache", cached, path),
        ]
    create_table_artifact(table, key="batches-and-caching", description=f"{count} rows")
    return Completed(message=f"{count} rows added up in {len(table)} ways", data=table)


if __name__ == "__main__":
    batches_and_caching()
