"""Submission of signals: recorded, then queued for the resumer."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Final

from events.event import Limits, refuse_hydration
from events.identity import id_of
from events.signal import Outcome, ResumeSignal, parse_signal
from services.job_queues.queues import APPLY_SIGNAL, RESUME, enqueue, queue
from services.store.connection import SyncRedis
from services.store.signals.signals import SignalStore

JOB_SECONDS: Final = 120
_FAILURE_SECONDS: Final = 7 * 86_400


class SignalSubmission:
    """Takes signals in: recorded, in order for their target, and as a job on the resume queue.

    ``rq_redis`` is a blocking client, used from threads.
    """

    def __init__(self, *, store: SignalStore, rq_redis: SyncRedis, limits: Limits) -> None:
        self._store = store
        self._queue = queue(RESUME, rq_redis)
        self._limits = limits

    async def submit(self, signal: ResumeSignal, *, origin: str = "") -> Outcome | None:
        """Take the signal in; durable on return. Answers `Outcome.DUPLICATE` when its id was known, else None.

        ``origin`` says where it came in. Raises `RejectedEvent` for input that Prefect's server would execute,
        `TransientError` or `Backpressure` when Redis cannot take it: it may then have been taken in or not, and the
        same call again completes it.
        """
        refuse_hydration(signal.input)
        if "ttl_seconds" not in signal.model_fields_set:
            signal = signal.model_copy(update={"ttl_seconds": self._store.default_ttl_seconds})
        new, status = await self._store.submit(
            signal, origin or (f"event {id_of(signal.event_identity)}" if signal.event_identity else "-")
        )
        if new or status == "received":
            await self.ring(signal.id)
        return None if new else Outcome.DUPLICATE

    async def accept(self, raw: bytes, origin: str) -> Outcome | None:
        """`submit` for a message as it came; raises `RejectedEvent` if it is none."""
        return await self.submit(parse_signal(raw, limits=self._limits), origin=origin)

    async def ring(self, signal_id: str) -> None:
        """Have a resumer look at the signal now."""
        digest = hashlib.blake2b(signal_id.encode(), digest_size=16).hexdigest()
        await asyncio.to_thread(
            enqueue,
            self._queue,
            APPLY_SIGNAL,
            signal_id,
            job_id=f"signal-{digest}",
            timeout_seconds=JOB_SECONDS,
            result_ttl=0,
            failure_ttl=_FAILURE_SECONDS,
        )
