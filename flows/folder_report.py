"""A pipeline in three steps: extract (the files of a folder), transform (each, side by side), load (a report).

Each file's summary is cached under the version of the file: a second run reads only what is new or has changed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from prefect import State, flow, get_run_logger, runtime, task, unmapped
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.context import TaskRunContext
from prefect.futures import wait
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from sluice import Budget, in_markdown, open_file, run_name, visible
from sluice.loading.formats import read
from sluice.loading.reading.source import members


def file_version(_context: TaskRunContext, parameters: Mapping[str, Any]) -> str:
    """The cache key of a summary: another one as soon as the file is written to or replaced."""
    path = Path(parameters["path"])
    found = path.lstat()
    return f"folder-report:{path}:{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"


@task
def extract(folder: str, pattern: str) -> list[str]:
    """The files to report on, in order of their names."""
    if not Path(folder).is_dir():
        raise ValueError(f"there is no folder {folder!r}")
    return sorted(str(path) for path in Path(folder).glob(pattern) if path.is_file())


def shown_path() -> str:
    """The name of the task's run."""
    return visible(runtime.task_run.parameters["path"])


@task(persist_result=True, cache_key_fn=file_version, cache_expiration=timedelta(days=7), task_run_name=shown_path)
def transform(path: str, folder: str) -> dict[str, Any]:
    """What one file holds: columns, rows, and how many fields are empty. No link below the folder is followed."""
    columns = rows = empty = 0
    with open_file(path, folders=[folder]) as raw:
        for member in members(raw, path, Budget()):
            reading = read(member)
            columns += len(reading.columns)
            for batch in reading.batches():
                rows += batch.rows.num_rows
                empty += sum(column.null_count for column in batch.rows.columns)
    get_run_logger().info("read %s: %s rows", visible(path), rows)
    return {"file": visible(os.path.basename(path)), "columns": columns, "rows": rows, "empty fields": empty}  # noqa: PTH119 - text, not a path


@task
def load(summaries: list[dict[str, Any]], failed: list[str]) -> str:
    """Publish the report; answers its markdown."""
    rows = sum(summary["rows"] for summary in summaries)
    markdown = f"**{len(summaries)} files, {rows:,} rows**"
    if failed:
        markdown += "\n\nNot readable:\n\n" + "\n".join(f"- {in_markdown(path)}" for path in failed)
    create_markdown_artifact(markdown, key="folder-report", description="Report")
    create_table_artifact(summaries, key="folder-report-files", description="Files")
    return markdown


@flow(
    name="folder-report",
    flow_run_name=run_name("report on {folder}"),
    task_runner=ThreadPoolTaskRunner(max_workers=4),  # type: ignore[arg-type] # Prefect's own runner
)
def folder_report(folder: str, pattern: str = "*.csv") -> State[list[dict[str, Any]]]:
    """Report on the CSV files of a folder; one that cannot be read is named and does not hold the others up.

    Needs a folder that the executor may read.
    """
    paths = extract(folder, pattern)
    futures = transform.map(paths, unmapped(folder))
    wait(futures)
    summaries = [future.result() for future in futures if future.state.is_completed()]
    failed = [path for path, future in zip(paths, futures, strict=True) if not future.state.is_completed()]
    load(summaries, failed)
    message = f"{len(summaries)} files reported on" + (f", {len(failed)} not readable" if failed else "")
    return Completed(message=message, data=summaries)


if __name__ == "__main__":
    folder_report(".")
