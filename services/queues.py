"""The RQ queues: the one owner of `rq`, and the gate that lets only the project's own jobs run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from rq import Queue
from rq.exceptions import DuplicateJobError
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import import_attribute
from typing_extensions import override

from events.errors import RejectedEvent
from services.store.connection import SyncRedis, translated

RUNS: Final = "sluice-runs"
RESUME: Final = "sluice-resume"

EXECUTE_RUN: Final = "services.jobs.execute_run"
APPLY_SIGNAL: Final = "services.jobs.apply_signal"
ALLOWED: Final = frozenset({EXECUTE_RUN, APPLY_SIGNAL})


class SluiceJob(Job):
    """A job whose function is refused, before anything is imported, unless it is one of Sluice's own."""

    @property
    @override
    def func(self) -> Callable[..., Any]:
        name = self.func_name
        if name not in ALLOWED or self.instance is not None:
            raise RejectedEvent("foreign-job", f"the job {self.id} asks for {name!r}, which is not a job of Sluice")
        return import_attribute(name)


def queue(name: str, redis: SyncRedis) -> Queue:
    """The queue ``name`` with the JSON serializer: nothing read from Redis is ever unpickled."""
    return Queue(name, connection=redis, serializer=JSONSerializer, job_class=SluiceJob)


def enqueue(target: Queue, function: str, *args: Any, job_id: str, timeout_seconds: int, **options: Any) -> bool:
    """Put a job on its queue under ``job_id``; false if that id is there already (its job exists or existed).

    ``job_id`` may hold letters, digits, ``-`` and ``_``. Raises `TransientError` or `Backpressure`.
    """
    with translated():
        try:
            target.enqueue(function, args=args, job_id=job_id, unique=True, job_timeout=timeout_seconds, **options)
        except DuplicateJobError:
            return False
    return True
