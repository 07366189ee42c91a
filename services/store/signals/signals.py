"""The signals: every resume signal with its outcome, the open ones in order, and the leases for applying them.

A signal is *open* until its outcome is final: ``received`` (no resumer has handled it yet) or ``buffered`` (no run
waits for it yet). Open signals are kept per target in the order in which Redis received them.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from config.settings import ResumerSettings
from events.errors import TransientError
from events.signal import Outcome, ResumeSignal
from services.store.connection import AsyncRedis, ask_each
from services.store.keys import is_text
from services.store.lease import RELEASE, TAKE
from services.store.scripts import Script, run_and_replicate
from services.store.signals.signal_keys import (
    ANSWERED,
    BUSY,
    INDEX,
    LATELY,
    OPEN,
    RECORD,
    RUN,
    TARGET,
    WAITED,
    stay_key,
)
from services.store.signals.signal_queries import SignalQueries
from services.store.signals.signal_record import RECEIVED, Answered, Mark, SignalRecord, to_ms
from services.store.unreadable import readable

_LOOK_AGAIN_MS: Final = 3000
"""Time after which a received signal whose job is lost, or one that was claimed and not decided, is handled again."""

_ANSWERED_SECONDS: Final = 3600
_LATE_MS: Final = 3_600_000
"""A run that becomes known later than this after a signal for its key does not get that signal any more."""

_MOST_ANSWERED: Final = 20
_MOST_WAITED: Final = 100
_MOST_REPEATS: Final = 20
_PAGE: Final = 200
_OPEN_STATUSES: Final = frozenset({RECEIVED, Outcome.BUFFERED})
_MARGIN: Final = 0.8
"""The holder of a lease trusts it for less than the server does: clocks may run a little apart."""

_SUBMIT: Final = Script("signals/submit")
_BUFFER: Final = Script("signals/buffer")
_DECIDE: Final = Script("signals/decide")
_CLAIM: Final = Script("signals/claim")
_DISCLAIM: Final = Script("signals/disclaim")
_REOPEN: Final = Script("signals/reopen")
_WITNESS: Final = Script("signals/witness")


@dataclass(slots=True)
class Busy:
    """A short lease; `remaining` seconds of it are left by this machine's clock, with a margin."""

    key: str
    token: str
    until: float

    @property
    def remaining(self) -> float:
        """Seconds for which nobody else can hold it."""
        return self.until - time.monotonic()


class SignalStore(SignalQueries):
    """Reads and changes signals; every method raises `TransientError` or `Backpressure` when Redis cannot do it now."""

    def __init__(self, redis: AsyncRedis, settings: ResumerSettings) -> None:
        super().__init__(redis)
        self._settings = settings

    @property
    def default_ttl_seconds(self) -> float:
        """How long a signal without ``ttl_seconds`` is kept."""
        return self._settings.default_ttl_seconds

    @property
    def _retention_ms(self) -> int:
        return int(self._settings.retention_seconds * 1000)

    async def submit(self, signal: ResumeSignal, origin: str) -> tuple[bool, str]:
        """Record the signal, once; return whether its id was new, and its status. Durable on return."""
        new, status = await run_and_replicate(
            self._redis,
            _SUBMIT,
            record=RECORD + signal.id,
            target=TARGET + signal.target,
            id=signal.id,
            signal=signal.model_dump_json(),
            origin=origin,
            look_again_ms=_LOOK_AGAIN_MS,
            most_repeats=_MOST_REPEATS,
        )
        return bool(new), status.decode()

    async def buffer(self, record: SignalRecord, reason: str) -> bool:
        """Keep the signal until a run waits for it or it expires; false when the buffer is full."""
        answer = await _BUFFER(
            self._redis,
            record=RECORD + record.signal.id,
            id=record.signal.id,
            expires_ms=to_ms(record.expires),
            most_buffered=self._settings.max_buffered,
            reason=reason,
        )
        return int(answer) >= 0

    async def decide(self, record: SignalRecord, outcome: Outcome, reason: str) -> bool:
        """Give the signal its final outcome; false if it has one, or while one for a key is being applied to a run.

        A signal for every run that waits for a key is remembered for an hour: see `late_for`.
        """
        signal = record.signal
        for_all = signal.key is not None and signal.deliver == "all" and outcome is Outcome.APPLIED
        answer = await _DECIDE(
            self._redis,
            record=RECORD + signal.id,
            target=TARGET + signal.target,
            late=LATELY + (signal.key or ""),
            id=signal.id,
            outcome=outcome.value,
            reason=reason,
            retention_ms=self._retention_ms,
            late_ms=_LATE_MS if for_all else 0,
            await_claims=int(signal.key is not None),
        )
        return bool(answer)

    async def claim(self, record: SignalRecord, run_id: str, mark: Mark, busy: Busy) -> bool:
        """Record that the signal is about to be applied; false if it is decided by now, or the lease is lost.

        The number of replicas in the settings hold the record then, so that no failover applies the signal twice. For a
        run of a restored backup that no executor has finalized it raises `TransientError`, too: Prefect would let the
        run go on, and then it would be Crashed.
        """
        signal = record.signal
        answer = await run_and_replicate(
            self._redis,
            _CLAIM,
            record=RECORD + signal.id,
            run_signals=RUN + run_id,
            stay=stay_key(run_id, mark.wait),
            lease=busy.key,
            late=LATELY + (signal.key or ""),
            id=signal.id,
            run_id=run_id,
            mark=mark.model_dump_json(),
            retention_ms=self._retention_ms,
            token=busy.token,
            deliver=signal.deliver,
            look_again_ms=_LOOK_AGAIN_MS,
        )
        if answer < 0:
            raise TransientError(f"the run {run_id} was restored from a backup, and no executor has settled it yet")
        return bool(answer)

    async def disclaim(self, record: SignalRecord, run_id: str, mark: Mark) -> None:
        """Undo a `claim`: the run was not in that wait any more, and the signal had no effect on it."""
        await _DISCLAIM(
            self._redis,
            record=RECORD + record.signal.id,
            run_signals=RUN + run_id,
            stay=stay_key(run_id, mark.wait),
            id=record.signal.id,
            run_id=run_id,
        )

    async def reopen(self, record: SignalRecord, run_id: str, mark: Mark, reason: str) -> None:
        """Have a signal applied to the run once more, because Prefect has lost its effect."""
        signal, again = record.signal, mark.model_copy(update={"outcome": None, "reason": ""})
        await _REOPEN(
            self._redis,
            record=RECORD + signal.id,
            target=TARGET + signal.target,
            id=signal.id,
            run_id=run_id,
            mark=again.model_dump_json(),
            reason=reason,
        )

    async def settle(self, record: SignalRecord, run_id: str, mark: Mark) -> None:
        """Record the signal's outcome for that run."""
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hset(RECORD + record.signal.id, f"run:{run_id}", mark.model_dump_json())
            pipeline.zadd(RUN + run_id, {record.signal.id: record.place})
            pipeline.pexpire(RUN + run_id, self._retention_ms)
            await pipeline.execute()

    async def witness(
        self, signal: ResumeSignal, origin: str, *, run_id: str, mark: Mark, reason: str, at: datetime
    ) -> bool:
        """Record the end of a wait without a signal, as a signal with the outcome of ``mark``; false if known."""
        answer = await _WITNESS(
            self._redis,
            record=RECORD + signal.id,
            run_signals=RUN + run_id,
            id=signal.id,
            signal=signal.model_dump_json(),
            origin=origin,
            run_id=run_id,
            mark=mark.model_dump_json(),
            outcome=mark.outcome or Outcome.APPLIED,
            reason=reason,
            at_ms=to_ms(at),
            retention_ms=self._retention_ms,
        )
        return bool(answer)

    async def look_again(self, signal_id: str, after_seconds: float) -> None:
        """Have the signal handled again, if it is still open."""
        due = await self._server_ms() + int(after_seconds * 1000)
        await self._redis.zadd(OPEN, {signal_id: due}, xx=True)

    async def answered(self, key: str, wait: Answered) -> None:
        """Remember for an hour that a wait for the key was answered."""
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.lpush(ANSWERED + key, wait.to_json())
            pipeline.ltrim(ANSWERED + key, 0, _MOST_ANSWERED - 1)
            pipeline.expire(ANSWERED + key, _ANSWERED_SECONDS)
            self._waits_began(pipeline, wait.run_id, key, wait.entered)
            await pipeline.execute()

    async def waits_began(self, waits: Iterable[tuple[str, str, datetime]]) -> None:
        """Remember that runs (id, key, when they entered the wait) wait for a key: see `waited_for`."""
        async with self._redis.pipeline(transaction=True) as pipeline:
            for run_id, key, entered in waits:
                self._waits_began(pipeline, run_id, key, entered)
            await pipeline.execute()

    def _waits_began(self, pipeline: Any, run_id: str, key: str, entered: datetime) -> None:
        pipeline.zadd(WAITED + key, {run_id: to_ms(entered)}, gt=True)
        pipeline.zremrangebyrank(WAITED + key, 0, -_MOST_WAITED - 1)
        pipeline.pexpire(WAITED + key, self._retention_ms)

    @asynccontextmanager
    async def busy(self, name: str) -> AsyncIterator[Busy]:
        """Hold the lease ``name`` for ``lease_seconds``; waits while another process holds it.

        Raises `TransientError` after waiting for longer than two leases.
        """
        key, token = BUSY + name, secrets.token_hex(8)
        lease = self._settings.lease_seconds
        give_up = time.monotonic() + 2 * lease
        pause = 0.005
        while True:
            asked = time.monotonic()
            ours = await TAKE(self._redis, lease=key, holder=token, life_ms=int(lease * 1000))
            if ours:
                break
            if time.monotonic() > give_up:
                raise TransientError(f"another process is busy with {name}")
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.1)
        try:
            yield Busy(key=key, token=token, until=asked + lease * _MARGIN)
        finally:
            with contextlib.suppress(TransientError):
                await asyncio.shield(RELEASE(self._redis, lease=key, holder=token))

    async def forget(self) -> int:
        """Delete signals beyond ``max_records``, or expired, from the index; return their number."""
        surplus = await self._redis.zcard(INDEX) - self._settings.max_records
        window = max(surplus, _PAGE) + await self._redis.zcard(OPEN)  # open ones stay, however old they are
        members = await self._redis.zrange(INDEX, 0, window - 1)
        oldest = list(readable(INDEX, is_text, members))
        known = await ask_each(self._redis, lambda pipeline, id_: pipeline.hget(RECORD + id_, "status"), oldest)
        expired = [member for member, status in known if status is None]
        closed = [member for member, status in known if status and status.decode() not in _OPEN_STATUSES]
        gone = [*expired, *closed[: max(0, surplus - len(expired))]]
        if gone:
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.zrem(INDEX, *gone)
                pipeline.delete(*(RECORD + member for member in gone))
                await pipeline.execute()
        return len(gone)
