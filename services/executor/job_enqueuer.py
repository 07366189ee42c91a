"""Puts runs on their queue without blocking the event loop, and reads the state of jobs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, TypeVar

from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer
from rq.utils import as_text, utcparse

from services.job_queues.job_gate import EXECUTE_RUN
from services.job_queues.queues import SluiceJob, SluiceQueue, enqueue, queue, rq_translated
from services.store.connection import SyncRedis
from services.store.runs.executions import QUEUED, QUEUED_SECONDS

T = TypeVar("T")

FINISHED_SECONDS: Final = 600
"""How long a finished job is kept for RQ's tools."""
FAILED_SECONDS: Final = 86_400


class JobEnqueuer:
    """The executor's calls to the RQ queues, in one thread of its own.

    ``held`` returns whether the register of executions has a run; it blocks.
    """

    def __init__(self, redis: SyncRedis, *, held: Callable[[str], bool]) -> None:
        self._redis = redis
        self._held = held
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sluice-queueing")

    async def put(self, queue_name: str, run_id: str, state_id: str, *, again: bool = False) -> bool:
        """Queue the run under its state's id; false if it is queued, or was and ``again`` is not set.

        With ``again``, a new job replaces one that has ended or was lost. Raises `TransientError` or `Backpressure`.
        """
        return await self.call(partial(self._put, again=again), queue(queue_name, self._redis), run_id, state_id)

    async def call(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run blocking work on Redis in the thread; raises `TransientError` or `Backpressure`."""

        def translating() -> T:
            with rq_translated():
                return work(*arguments)

        return await asyncio.get_running_loop().run_in_executor(self._thread, translating)

    async def waiting(self, names: list[str]) -> tuple[int, float]:
        """Return the number of queued jobs and the age of the oldest in seconds."""
        return await self.call(self._waiting, names)

    async def unblock(self, client_id: int) -> None:
        """Unblock a slot that waits for its next job."""
        await self.call(self._redis.client_unblock, client_id)

    def close(self) -> None:
        """End the thread and the connection."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._redis.close()

    def _waiting(self, names: list[str]) -> tuple[int, float]:
        """Return the number of queued runs, and the age of the oldest in seconds."""
        count, oldest = 0, 0.0
        for name in names:
            target = queue(name, self._redis)
            count += target.count
            for job_id in target.get_job_ids(0, 1):
                enqueued = self._redis.hget(Job.key_for(job_id), "enqueued_at")
                if enqueued:
                    age = datetime.now(UTC) - utcparse(as_text(enqueued))
                    oldest = max(oldest, age.total_seconds())
        return count, round(oldest, 1)

    def _put(self, target: SluiceQueue, run_id: str, state_id: str, *, again: bool) -> bool:
        """Put a run on a queue unless it waits there; return whether it was put. Runs in a thread.

        ``again`` says that the run should have started by now: a job that is over without having executed it, or that
        RQ has lost, is then replaced.
        """
        # Prefect gives a run that waits for long another state, Late: it waits once all the same.
        earlier: Any = self._redis.getex(QUEUED + run_id, ex=QUEUED_SECONDS)
        if earlier is not None and as_text(earlier) != state_id and self._waits(target, as_text(earlier)):
            return False
        if self._enqueue(target, run_id, state_id):
            return True
        if not again or not self._is_over_or_lost(target, run_id, state_id):
            return False
        self._redis.lrem(IntermediateQueue.get_intermediate_queue_key(target.key), 0, state_id)
        job = Job(state_id, connection=self._redis, serializer=JSONSerializer)
        # Otherwise RQ would remove it from a queue without a name, which this user of Redis may not touch.
        job.origin = target.name
        with contextlib.suppress(InvalidJobOperation):  # the job was deleted meanwhile
            job.delete()
        return self._enqueue(target, run_id, state_id)

    def _enqueue(self, target: SluiceQueue, run_id: str, state_id: str) -> bool:
        """Enqueue the job of a run's state; False if RQ knows a job for this state. Its id makes it unique."""
        queued = enqueue(
            target,
            EXECUTE_RUN,
            run_id,
            state_id,
            job_id=state_id,
            timeout_seconds=-1,
            result_ttl=FINISHED_SECONDS,
            failure_ttl=FAILED_SECONDS,
        )
        if queued:
            self._redis.set(QUEUED + run_id, state_id, ex=QUEUED_SECONDS)
        return queued

    def _waits(self, target: SluiceQueue, job_id: str) -> bool:
        """Whether the job is there, and on its queue."""
        return bool(self._redis.exists(Job.key_for(job_id))) and self._redis.lpos(target.key, job_id) is not None

    def _is_over_or_lost(self, target: SluiceQueue, run_id: str, job_id: str) -> bool:
        """Whether the job has ended, or no slot has its run: RQ would notice the latter only after minutes."""
        try:
            status = SluiceJob.fetch(job_id, connection=self._redis, serializer=JSONSerializer).get_status(
                refresh=False
            )
        except NoSuchJobError:
            return True
        if status not in (JobStatus.QUEUED, JobStatus.STARTED):
            return True
        if status == JobStatus.QUEUED and self._redis.lpos(target.key, job_id) is not None:
            return False
        return not self._held(run_id)
