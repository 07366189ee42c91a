"""Submits signals: records them, then queues them for the resumer."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Final

from events.identity import id_of
from events.signal import Outcome, ResumeSignal, parse_signal
from events.untrusted_json import Limits, refuse_hydration
from services.job_queues.job_gate import APPLY_SIGNAL
from services.job_queues.queues import enqueue, queue
from services.job_queues.rq_keys import RESUME
from services.store.connection import SyncRedis
from services.store.signals.signal_record import SignalRecord
from services.store.signals.signals import SignalStore

JOB_SECONDS: Final = 120
_FAILURE_SECONDS: Final = 7 * 86_400


class SignalSubmission:
    """Records signals in order for their target, and enqueues a job for each on the resume queue.

    ``rq_redis`` is a blocking client, used from threads.
    """

    def __init__(self, *, store: SignalStore, rq_redis: SyncRedis, limits: Limits) -> None:
        self._store = store
        self._queue = queue(RESUME, rq_redis)
        self._limits = limits

    async def submit(self, signal: ResumeSignal, origin: str = "") -> Outcome | None:
        """Submit the signal; durable on return. Returns `Outcome.DUPLICATE` when its id was known, else None.

        ``origin`` names the source. Raises `RejectedEvent` for input that Prefect's server would execute,
        `TransientError` or `Backpressure` when Redis cannot store it: the signal may then be recorded or not, and the
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
        """`submit` a received message; raises `RejectedEvent` if it is not a signal."""
        return await self.submit(parse_signal(raw, limits=self._limits), origin=origin)

    async def outcome(self, signal_id: str, within_seconds: float) -> SignalRecord | None:
        """Return the signal's outcome, waiting for it at most that long; None if it has none yet."""
        return await self._store.outcome(signal_id, within_seconds, of=tuple(Outcome))

    async def ring(self, signal_id: str) -> None:
        """Enqueue a job, so that a resumer applies the signal now."""
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
