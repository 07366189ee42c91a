"""The RQ queues and workers: the owner of `rq`; every job passes `services.job_queues.job_gate` first."""

from __future__ import annotations

import logging
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, cast

import structlog
from rq import Queue, SimpleWorker
from rq.exceptions import (
    DeserializationError,
    DuplicateJobError,
    InvalidJobDependency,
    InvalidJobOperation,
    NoSuchJobError,
    StopRequested,
)
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job
from rq.registry import FailedJobRegistry, FinishedJobRegistry, StartedJobRegistry
from rq.serializers import JSONSerializer
from rq.timeouts import TimerDeathPenalty
from rq.utils import import_attribute
from rq.worker import BaseWorker, WorkerStatus
from rq.worker_registration import clean_worker_registry
from typing_extensions import override

from events.dead_letter import DeadLetter
from events.errors import RejectedEvent, SluiceError
from services.job_queues.job_gate import ALLOWED, APPLY_SIGNAL, EXECUTE_RUN, beginning, refusal
from services.store.connection import SyncRedis, translated
from services.store.dead_letters import KEPT_BYTES, keep, letter_id_of
from services.store.inspection.looks import ask_for_a_look
from services.store.unreadable import FAULTS, UnreadableKey, noted
from sluice.display import visible

__all__ = [
    "ALLOWED",
    "APPLY_SIGNAL",
    "EXECUTE_RUN",
    "RESUME",
    "RUNS",
    "Gated",
    "SluiceJob",
    "SluiceQueue",
    "ThreadWorker",
    "enqueue",
    "queue",
    "rq_translated",
    "simple_worker",
]

RUNS: Final = "sluice-runs"
RESUME: Final = "sluice-resume"

FAILURE_SECONDS: Final = 7 * 86_400
"""How long a refused job stays in RQ's failed registry."""

_JOB_ID: Final = re.compile(rb"[A-Za-z0-9_-]{1,200}")

log = structlog.get_logger()


class RefusedJob(NoSuchJobError):
    """What RQ is told of a job that `refusal` refuses, wherever it comes across it: there is no such job."""


class SluiceJob(Job):
    """A job that has passed `refusal`; it has no callbacks and no webhooks whatever its fields say."""

    @override
    def restore(self, raw_data: Mapping[bytes, bytes]) -> Any:
        reason = refusal(raw_data)
        if reason is not None:
            raise RefusedJob(reason)
        try:
            return super().restore(raw_data)
        except Exception as error:  # RQ asserts and converts as it reads; whatever is wrong, it is the job that is
            raise RefusedJob(f"the job's fields cannot be read: {error}") from error

    @property
    @override
    def func(self) -> Callable[..., Any]:
        name = self.func_name
        if name not in ALLOWED or self.instance is not None:
            raise RejectedEvent("foreign-job", f"the job {self.id} asks for {name!r}, which is not a job of Sluice")
        return import_attribute(name)

    @property
    @override
    def success_callback(self) -> None:
        return None

    @property
    @override
    def failure_callback(self) -> None:
        return None

    @property
    @override
    def stopped_callback(self) -> None:
        return None

    @override
    def send_webhooks(self, status: Any, *, exc_string: str | None = None) -> None:
        return


class SluiceQueue(Queue):
    """A queue that puts refused jobs aside, in RQ's failed registry with the reason, and goes on with the next."""

    job_class = SluiceJob

    @classmethod
    @override
    def lmove(cls, connection: SyncRedis, queue_key: str, timeout: int | None) -> Any:
        while True:
            found = super().lmove(connection, queue_key, timeout)
            if found is None or _JOB_ID.fullmatch(found[1]):
                return found
            connection.lrem(IntermediateQueue.get_intermediate_queue_key(queue_key), 1, found[1])
            log.warning("job refused", queue=queue_key, job=repr(found[1][:200]), reason="this is not a job id")

    @classmethod
    @override
    def lpop(cls, queue_keys: Sequence[str], timeout: int | None, connection: SyncRedis | None = None) -> Any:
        while True:
            found = super().lpop(queue_keys, timeout, connection=connection)
            if found is None or _JOB_ID.fullmatch(found[1]):
                return found
            log.warning("job refused", queue=str(found[0]), job=repr(found[1][:200]), reason="this is not a job id")

    @classmethod
    @override
    def _fetch_dequeued_job(
        cls,
        connection: SyncRedis,
        queue_key: str,
        job_id: str,
        job_class: type[Job] | None = None,
        serializer: Any = None,
        death_penalty_class: Any = None,
    ) -> tuple[Job, Queue] | None:
        del job_class, serializer, death_penalty_class  # ours are not for the caller to choose
        name = queue_key.removeprefix(cls.redis_queue_namespace_prefix)
        job = SluiceJob(job_id, connection=connection, serializer=JSONSerializer)
        try:
            job.refresh()  # type: ignore[no-untyped-call]
        except RefusedJob as refused:
            _put_aside(connection, name, job_id, str(refused))
            return None
        except NoSuchJobError:
            connection.lrem(IntermediateQueue.get_intermediate_queue_key(queue_key), 1, job_id)
            return None
        if job.origin != name:
            _put_aside(connection, name, job_id, f"the job was made for the queue {job.origin!r}")
            return None
        return job, queue(name, connection)

    @override
    def move_dependents_to_ready(
        self, job: Job, pipeline: Any = None, exclude_job_id: str | None = None, refresh_job_status: bool = True
    ) -> dict[str, list[str]]:
        return {}

    @override
    def enqueue_dependents(
        self, job: Job, exclude_job_id: str | None = None, refresh_job_status: bool = True
    ) -> dict[str, list[str]]:
        return {}


def _put_aside(connection: SyncRedis, name: str, job_id: str, reason: str) -> None:
    """Keep it as a dead letter and, for `rq info`, in the failed registry; nothing of it is unpickled."""
    key = Job.key_for(job_id)
    now = datetime.now(UTC)
    stored = cast(bytes, connection.hget(key, "data") or b"")
    letter = DeadLetter(
        id=letter_id_of("job", name, job_id),
        kind="job",
        code="foreign-job",
        reason=visible(f"{reason} (the job {job_id}, {len(stored)} bytes as it is stored)", 2000),
        source=f"rq:{name}",
        raw=beginning(stored, KEPT_BYTES),
        first_failed=now,
        last_failed=now,
    )
    keep(connection, letter)
    with connection.pipeline() as pipeline:
        pipeline.hset(key, mapping={"status": "failed", "exc_info": zlib.compress(reason.encode())})
        pipeline.hsetnx(key, "origin", name)
        pipeline.expire(key, FAILURE_SECONDS)
        pipeline.zadd(FailedJobRegistry.key_template.format(name), {job_id: int(now.timestamp()) + FAILURE_SECONDS})
        pipeline.lrem(
            IntermediateQueue.get_intermediate_queue_key(f"{Queue.redis_queue_namespace_prefix}{name}"), 1, job_id
        )
        pipeline.execute()
    log.warning("job refused", queue=name, job=job_id, reason=reason)


class Gated(BaseWorker):
    """What every worker of Sluice has in common: the gate, JSON, and maintenance that touches only what Sluice uses."""

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
    def clean_registries(self) -> None:
        for own in self.queues:
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
        """A key that anybody may set would stop all workers without a word: `rq suspend` is not heard here."""

    @override
    def run_maintenance_tasks(self) -> None:
        """Garbage in RQ's registries must not end the worker, which has jobs to do."""
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
        """A malformed command must not end the thread that hears the next one."""
        try:
            super().handle_payload(message)  # type: ignore[no-untyped-call]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("rq command ignored", worker=self.name, error=repr(error))


class ThreadWorker(Gated, SimpleWorker):
    """Runs each job where `work` was called, which may be a thread; `stop` ends `work` after the job in hand.

    ``begun`` is called once the worker is registered. RQ's commands are not heard: they would need a thread more.
    """

    death_penalty_class = TimerDeathPenalty

    def __init__(
        self, names: Sequence[str], redis: SyncRedis, name: str, *, begun: Callable[[], object], **options: Any
    ) -> None:
        super().__init__(names, redis, name, **options)
        self._begun = begun

    @override
    def bootstrap(self, *args: Any, **options: Any) -> None:
        super().bootstrap(*args, **options)
        self._begun()

    @override
    def subscribe(self) -> None:
        return

    @override
    def unsubscribe(self) -> None:
        return

    def stop(self) -> None:
        """Make `work` return, within about a second when idle; callable from any thread."""
        self._stop_requested = True

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
        # Redis' state is no fault of ours that a trace would help to find.
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


_IDLE_WAIT_SECONDS: Final = 1
_WORKER_TTL_SECONDS: Final = _IDLE_WAIT_SECONDS + 15
"""RQ waits for a job for 15 s less than this, so that a stop is noticed after a second."""


def simple_worker(
    queue_names: Sequence[str], redis: SyncRedis, name: str, *, begun: Callable[[], object] = lambda: None
) -> ThreadWorker:
    """A worker that runs its jobs in the calling thread, one after the other: ``worker.work(logging_level="WARNING")``.

    ``begun`` is called once it takes jobs. ``work`` returns after `stop`, and also when Redis stays away longer than a
    command may take: call it again, on a new worker, after a pause. ``redis`` must be this worker's own client.
    """
    bridge_logs()
    return ThreadWorker(queue_names, redis, name, begun=begun, worker_ttl=_WORKER_TTL_SECONDS)


@contextmanager
def rq_translated() -> Iterator[None]:
    """`translated`, and what RQ makes of a job or a worker that it cannot read: `UnreadableKey`."""
    try:
        with translated():
            yield
    except SluiceError:
        raise
    except (*FAULTS, InvalidJobOperation, InvalidJobDependency, DeserializationError) as error:
        noted.add(None)
        raise UnreadableKey(f"RQ cannot read what is in Redis: {error!r}") from error


def queue(name: str, redis: SyncRedis) -> SluiceQueue:
    """The queue ``name`` with the JSON serializer: nothing read from Redis is ever unpickled."""
    return SluiceQueue(name, connection=redis, serializer=JSONSerializer, job_class=SluiceJob)


def enqueue(target: Queue, function: str, *args: Any, job_id: str, timeout_seconds: int, **options: Any) -> bool:
    """Put a job on its queue under ``job_id``; false if that id is there already (its job exists or existed).

    ``job_id`` may hold letters, digits, ``-`` and ``_``. Raises `TransientError` or `Backpressure`.
    """
    with rq_translated():
        try:
            target.enqueue(function, args=args, job_id=job_id, unique=True, job_timeout=timeout_seconds, **options)
        except DuplicateJobError:
            return False
    return True
