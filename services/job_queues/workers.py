"""The RQ workers: they read only Sluice's queues, and continue whatever data Redis holds."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import structlog
from rq import Queue, SimpleWorker
from rq.exceptions import StopRequested
from rq.job import Job
from rq.registry import FailedJobRegistry, FinishedJobRegistry, StartedJobRegistry
from rq.serializers import JSONSerializer
from rq.timeouts import TimerDeathPenalty
from rq.worker import BaseWorker, WorkerStatus
from rq.worker_registration import WORKERS_BY_QUEUE_KEY, clean_worker_registry
from typing_extensions import override

from events.errors import SluiceError
from services.job_queues.queues import SluiceJob, SluiceQueue, queue, rq_translated
from services.job_queues.rq_keys import is_job_id, is_worker_key
from services.store.connection import SyncRedis
from services.store.inspection.looks import ask_for_a_look
from services.store.unreadable import UnreadableKey, reading

log = structlog.get_logger()


class Gated(BaseWorker):
    """Base of Sluice's workers: the gate, JSON, and maintenance of only the keys that Sluice uses."""

    queue_class = SluiceQueue
    job_class = SluiceJob

    def __init__(self, names: Sequence[str], redis: SyncRedis, name: str, **options: Any) -> None:
        super().__init__(
            [queue(queue_name, redis) for queue_name in names],
            name,
            connection=redis,
            serializer=JSONSerializer,
            log_job_description=False,
            **options,
        )

    @override
    def procline(self, message: str) -> None:
        """Do nothing: a role has several workers, and a slot sets the title of its process itself."""

    @override
    def clean_registries(self) -> None:
        """Clean RQ's registries as RQ does, but with our class of jobs and serializer."""
        for own in self.queues:
            _check_names(own)
            if not own.acquire_maintenance_lock():
                continue
            options: dict[str, Any] = {
                "name": own.name,
                "connection": own.connection,
                "job_class": SluiceJob,
                "serializer": JSONSerializer,
            }
            FinishedJobRegistry(**options).cleanup()
            StartedJobRegistry(**options).cleanup()
            FailedJobRegistry(**options).cleanup()
            clean_worker_registry(own)
            own.intermediate_queue.cleanup(self, own)
            own.release_maintenance_lock()  # type: ignore[no-untyped-call]
        self.last_cleaned_at = datetime.now(UTC)  # type: ignore[assignment]  # RQ leaves it untyped

    @override
    def clean_group_registries(self) -> None:
        return

    @override
    def check_for_suspension(self, burst: bool) -> None:
        """Ignore `rq suspend`: its key, which anybody may set, would stop all workers without notice."""

    @override
    def run_maintenance_tasks(self) -> None:
        """Run RQ's maintenance; garbage in its registries must not end the worker."""
        try:
            with rq_translated():
                super().run_maintenance_tasks()  # type: ignore[no-untyped-call]
        except UnreadableKey as error:
            log.warning("rq's registries cannot be tidied up", worker=self.name, error=str(error))
            self.last_cleaned_at = datetime.now(UTC)  # type: ignore[assignment]  # RQ leaves it untyped
            ask_for_a_look(self.connection)

    @override
    def dequeue_job_and_maintain_ttl(self, *args: Any, **options: Any) -> tuple[Job, Queue] | None:
        try:
            with rq_translated():
                return super().dequeue_job_and_maintain_ttl(*args, **options)
        except UnreadableKey:
            ask_for_a_look(self.connection)
            raise

    @override
    def handle_payload(self, message: dict[Any, Any]) -> None:
        """Handle a command; a malformed one must not end the thread that receives the next."""
        try:
            super().handle_payload(message)  # type: ignore[no-untyped-call]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("rq command ignored", worker=self.name, error=repr(error))


def _check_names(own: Queue) -> None:
    """Raise `UnreadableKey` for garbage that RQ would use as a key, for which its user may lack the right."""
    redis, started = own.connection, own.started_job_registry.key
    workers, taken = WORKERS_BY_QUEUE_KEY % own.name, own.intermediate_queue.key
    check_job = partial(is_job_id, queue=own.name)
    checked: tuple[tuple[str, Callable[[bytes], object], Any], ...] = (
        (workers, is_worker_key, redis.smembers(workers)),
        (taken, check_job, redis.lrange(taken, 0, -1)),
        (started, check_job, redis.zrangebyscore(started, 0, time.time())),
    )
    for key, check, members in checked:
        with reading(key):
            for member in members:
                check(member)


class ThreadWorker(Gated, SimpleWorker):
    """Runs each job where `work` was called, which may be a thread; `stop` ends `work` after the present job.

    ``begun`` is called once the worker is registered; its jobs belong to ``owner``. RQ's commands are ignored: they
    would need another thread.
    """

    death_penalty_class = TimerDeathPenalty

    def __init__(
        self,
        names: Sequence[str],
        redis: SyncRedis,
        name: str,
        *,
        begun: Callable[[], object],
        owner: object,
        **options: Any,
    ) -> None:
        super().__init__(names, redis, name, **options)
        self._begun = begun
        self._owner = owner
        self._client: int | None = None

    @override
    def bootstrap(self, *args: Any, **options: Any) -> None:
        super().bootstrap(*args, **options)
        self._client = self.connection.client_id()
        self._begun()

    @override
    def perform_job(self, job: Job, *args: Any, **options: Any) -> bool:
        if isinstance(job, SluiceJob):
            job.owner = self._owner
        return super().perform_job(job, *args, **options)

    @override
    def subscribe(self) -> None:
        return

    @override
    def unsubscribe(self) -> None:
        return

    def stop(self) -> None:
        """Make `work` return; callable from any thread. An idle worker notices it when it is woken."""
        self._stop_requested = True

    def wake(self) -> None:
        """End the worker's wait in Redis, if it waits now; blocks, and is callable from any thread."""
        if self._client is not None:
            with contextlib.suppress(SluiceError), rq_translated():
                self.connection.client_unblock(self._client)

    @override
    def heartbeat(self, timeout: int | None = None, pipeline: Any = None) -> None:
        if self._stop_requested and self.get_state() == WorkerStatus.IDLE:
            raise StopRequested
        super().heartbeat(timeout, pipeline)

    @override
    def _install_signal_handlers(self) -> None:
        """Signals belong to the process that owns the thread."""


class _Bridge(logging.Handler):
    @override
    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        # An outage of Redis needs no traceback: it is no fault in our code.
        if isinstance(error, SluiceError) or type(error).__module__.startswith("redis"):
            log.warning(record.getMessage(), library="rq", error=str(error))
        else:
            log.log(record.levelno, record.getMessage(), library="rq", exc_info=record.exc_info)


def bridge_logs() -> None:
    """Send RQ's warnings through this process's structured log instead of to standard output."""
    logger = logging.getLogger("rq")
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    if not any(isinstance(handler, _Bridge) for handler in logger.handlers):
        logger.addHandler(_Bridge())
    for child in ("rq.worker", "rq.job", "rq.registry"):
        logging.getLogger(child).setLevel(logging.WARNING)


_IDLE_WAIT_SECONDS: Final = 2
"""How long an idle worker waits in Redis for its next job before its next heartbeat."""
_WORKER_TTL_SECONDS: Final = _IDLE_WAIT_SECONDS + 15
"""RQ waits for a job for 15 s less than this."""


def simple_worker(
    queue_names: Sequence[str],
    redis: SyncRedis,
    name: str,
    *,
    begun: Callable[[], object] = lambda: None,
    owner: object = None,
) -> ThreadWorker:
    """Return a worker that runs its jobs in the calling thread, one after the other, by ``work``.

    ``begun`` is called once it takes jobs; their functions find ``owner`` by `owner_of_this_job`. ``work`` returns
    after `stop`, and also when Redis stays away longer than a command may take: call it again, on a new worker, after
    a pause. ``redis`` must be this worker's own client.
    """
    bridge_logs()
    return ThreadWorker(queue_names, redis, name, begun=begun, owner=owner, worker_ttl=_WORKER_TTL_SECONDS)
