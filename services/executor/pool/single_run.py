"""Executes one run without an executor."""

from __future__ import annotations

import os
import select
import socket
from typing import Any, Final

from config.project import load_project
from config.settings import load_settings
from services.executor.end_reason import EndReason
from services.executor.pool.fork_server_handle import environment_of_flows
from services.executor.pool.starters import SpawnStarter
from services.executor.process_exits import describe_exit

LOOK_SECONDS: Final = 0.5


def execute(run_id: str) -> dict[str, Any]:
    """Execute the run in a fresh interpreter, finalize it, and return its last step (``finished``, ``crashed``, …)."""
    settings = load_settings()
    project = load_project(settings.config, home=settings.home)
    environment = environment_of_flows(
        os.environ,
        prefect_api_url=os.environ.get("PREFECT_API_URL", ""),
        folders=project.watched_folders,
        contracts=project.contract_sources,
    )
    starter = SpawnStarter(
        name=f"{socket.gethostname()}-{os.getpid()}",
        environment=environment,
        shelf=settings.home / "executor" / "shelf",
        watched=False,
    )
    run_process = starter.start_run(run_id, queued=None, remembered=None, forget=lambda: None)
    while not run_process.reap():
        select.select([] if run_process.reports.ended else [run_process.reports.descriptor], [], [], LOOK_SECONDS)
        run_process.hear()
    run_process.hear()
    run_process.close()
    for step in ("gone", "early", "refused", "finished"):
        if step in run_process.steps:
            return dict(run_process.steps[step])
    problem = describe_exit(run_process.status or 0)
    settler = starter.finalizer(run_id, EndReason.CRASHED, problem, forget=lambda: None)
    while not settler.reap():
        select.select([], [], [], LOOK_SECONDS)
    settler.close()
    return {"step": "crashed", "why": problem}
