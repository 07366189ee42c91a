"""Executes one run without an executor."""

from __future__ import annotations

import os
import socket
from functools import partial

from config.project import load_project
from config.settings import load_settings
from services.executor.messages import ExecuteRun, FinalizeRun
from services.executor.pipes import Link
from services.executor.pool.fork_server_handle import environment_of_flows
from services.executor.pool.run_process import spawn
from services.executor.pool.run_watch import RunOutcome, RunWatch


def execute(run_id: str) -> RunOutcome:
    """Execute the run in a fresh interpreter, finalize it where its process died, and return what became of it."""
    settings = load_settings(redis_user="executor")
    project = load_project(settings.config, home=settings.home)
    environment = environment_of_flows(
        os.environ,
        prefect_api_url=os.environ.get("PREFECT_API_URL", ""),
        folders=project.watched_folders,
        contracts=project.contract_sources,
    )
    start = partial(spawn, environment=environment, shelf=settings.home / "executor" / "shelf")
    run_process = start(ExecuteRun(run_id, f"{socket.gethostname()}-{os.getpid()}", watched=False))
    watch = RunWatch(run_process, Link(""), grace_seconds=settings.executor.grace_seconds)
    run_process.wait_for_end()
    run_process.close()
    outcome = watch.outcome()
    if watch.end is not None:
        finalizer = start(FinalizeRun(run_id, watch.end))
        finalizer.wait_for_end()
        finalizer.close()
    return outcome
