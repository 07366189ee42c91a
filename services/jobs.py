"""The RQ jobs: entry points, named by string in the queues and never imported by those who enqueue them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any


def execute_run(run_id: str, state_id: str) -> dict[str, Any]:
    """Execute the flow run ``run_id``, which entered its scheduled state ``state_id``, and return what became of it.

    The executor's slots do this themselves, in a fork of a warm process; called by any other RQ worker, this starts a
    fresh interpreter for the run.
    """
    from services.executor.pool.single_run import execute

    del state_id  # it only names the job; the present state is read from Prefect
    return asdict(execute(run_id))


def apply_signal(signal_id: str) -> None:
    """Apply the resume signal; run by the resumer's worker, which is the one that has the connections."""
    from services.job_queues.queues import owner_of_this_job
    from services.signals.worker import SignalWorker

    owner_of_this_job(SignalWorker).apply(signal_id)
