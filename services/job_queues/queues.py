"""The RQ queues: every job that is read from one passes `services.job_queues.job_gate` first."""

from __future__ import annotations

import contextlib
import re
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar, cast

import structlog
from rq import Queue
from rq.exceptions import (
    DeserializationError,
    DuplicateJobError,
    InvalidJobDependency,
    InvalidJobOperation,
    NoSuchJobError,
)
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job, get_current_job
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer
from rq.utils import import_attribute
from typing_extensions import override

from events.dead_letter import DeadLetter
from events.errors import Refused, SluiceError
from services.job_queues.job_gate import ALLOWED, beginning, refusal
from services.job_queues.rq_keys import is_job_id
from services.store.connection import SyncRedis, text
from services.store.dead_letters import KEPT_BYTES, keep, letter_id_of
from services.store.redis_errors import translated
from services.store.unreadable import FAULTS, UnreadableKey, noted
from sluice.display import visible

FAILURE_SECONDS: Final = 7 * 86_400
"""How long a refused job stays in RQ's failed registry."""

_JOB_ID: Final = re.compile(rb"[A-Za-z0-9_-]{1,200}")

T = TypeVar("T")

log = structlog.get_logger()


class RefusedJob(NoSuchJobError):
    """Raised wherever RQ reads a job that `refusal` refuses: for RQ there is no such job."""


class SluiceJob(Job):
    """A job that has passed `refusal`, which takes none with callbacks or webhooks."""

    owner: object = None
    """The owner of the worker that runs it (see `owner_of_this_job`)."""

    @override
    def restore(self, raw_data: Mapping[bytes, bytes]) -> Any:
        reason = refusal(raw_data)
        if reason is not None:
            raise RefusedJob(reason)
        try:
            return super().restore(raw_data)
        except Exception as error:  # RQ asserts and converts while it reads; any exception is caused by the job's data
            raise RefusedJob(f"the job's fields cannot be read: {error}") from error

    @property
    @override
    def func(self) -> Callable[..., Any]:
        name = self.func_name
        if name not in ALLOWED or self.instance is not None:
            raise Refused("foreign-job", f"the job {self.id} asks for {name!r}, which is not a job of Sluice")
        return import_attribute(name)


class SluiceQueue(Queue):
    """A queue that moves refused jobs to RQ's failed registry, with the reason, and continues with the next."""

    job_class = SluiceJob

    @classmethod
    @override
    def lmove(cls, connection: SyncRedis, queue_key: str, timeout: int | None) -> Any:
        while True:
            found = super().lmove(connection, queue_key, timeout)
            if found is None or _is_id_in(queue_key, found[1]):
                return found
            _put_entry_aside(connection, queue_key, found[1])

    @classmethod
    @override
    def lpop(cls, queue_keys: Sequence[str], timeout: int | None, connection: SyncRedis | None = None) -> Any:
        while True:
            found = super().lpop(queue_keys, timeout, connection=connection)
            if found is None or _is_id_in(text(found[0]), found[1]):
                return found
            _put_entry_aside(cast(SyncRedis, connection), text(found[0]), found[1])

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
        """Return a job that RQ has taken from the list, and its queue; None if it is not one of ours.

        A job that cannot be read, or was made for another queue, is set aside with the reason. Its function is checked
        when it is called.
        """
        del job_class, serializer, death_penalty_class  # the caller cannot choose others than ours
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


def _is_id_in(queue_key: str, job_id: bytes) -> bool:
    with contextlib.suppress(ValueError):
        is_job_id(job_id, queue=queue_key.removeprefix(Queue.redis_queue_namespace_prefix))
        return _JOB_ID.fullmatch(job_id) is not None
    return False


def _put_entry_aside(connection: SyncRedis, queue_key: str, entry: bytes) -> None:
    """Keep an entry that is no id of a job of this queue as a dead letter; it is never used in a key."""
    name = queue_key.removeprefix(Queue.redis_queue_namespace_prefix)
    reason = f"{visible(repr(entry[:200]), 300)} is not the id of a job of this queue"
    letter = DeadLetter(
        id=letter_id_of("job", name, repr(entry)),
        kind="job",
        code="foreign-job",
        reason=reason,
        source=f"rq:{name}",
        raw=entry[:KEPT_BYTES],
    )
    keep(connection, letter)
    connection.lrem(IntermediateQueue.get_intermediate_queue_key(queue_key), 1, cast(str, entry))
    log.warning("job refused", queue=name, reason=reason)


def _put_aside(connection: SyncRedis, name: str, job_id: str, reason: str) -> None:
    """Keep the job as a dead letter and, for `rq info`, in the failed registry; nothing of it is unpickled."""
    key = Job.key_for(job_id)
    stored = cast(bytes, connection.hget(key, "data") or b"")
    letter = DeadLetter(
        id=letter_id_of("job", name, job_id),
        kind="job",
        code="foreign-job",
        reason=visible(f"{reason} (the job {job_id}, {len(stored)} bytes as it is stored)", 2000),
        source=f"rq:{name}",
        raw=beginning(stored, KEPT_BYTES),
    )
    keep(connection, letter)
    with connection.pipeline() as pipeline:
        pipeline.hset(key, mapping={"status": "failed", "exc_info": zlib.compress(reason.encode())})
        pipeline.hsetnx(key, "origin", name)
        pipeline.expire(key, FAILURE_SECONDS)
        pipeline.zadd(FailedJobRegistry.key_template.format(name), {job_id: time.time() + FAILURE_SECONDS})
        pipeline.lrem(
            IntermediateQueue.get_intermediate_queue_key(f"{Queue.redis_queue_namespace_prefix}{name}"), 1, job_id
        )
        pipeline.execute()
    log.warning("job refused", queue=name, job=job_id, reason=reason)


@contextmanager
def rq_translated() -> Iterator[None]:
    """`translated`, and `UnreadableKey` for RQ's errors about a job or a worker that it cannot read."""
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


def owner_of_this_job(kind: type[T]) -> T:
    """Return the owner of the worker that runs this job; raises TypeError if it is no ``kind``."""
    job = get_current_job()
    if not isinstance(job, SluiceJob) or not isinstance(job.owner, kind):
        raise TypeError(f"this job is for the worker of a {kind.__name__}")
    return job.owner


def enqueue(target: Queue, function: str, *args: Any, job_id: str, timeout_seconds: int, **options: Any) -> bool:
    """Put a job on its queue under ``job_id``; false if a job with this id exists or existed.

    ``job_id`` may hold letters, digits, ``-`` and ``_``. Raises `TransientError` or `Backpressure`.
    """
    with rq_translated():
        try:
            target.enqueue(function, args=args, job_id=job_id, unique=True, job_timeout=timeout_seconds, **options)
        except DuplicateJobError:
            return False
    return True
