"""The signals: every resume signal with its outcome, those still to be applied in order, and who applies where.

A signal is *open* until its outcome is final: ``received`` (nobody has looked at it yet) or ``buffered`` (nobody waits
for it yet). Open signals are kept per target in the order in which Redis took them in.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from config.settings import ResumerSettings
from events.errors import NotFound, RejectedEvent, TransientError
from events.identity import without_tail
from events.signal import Outcome, ResumeSignal
from services.store.connection import AsyncRedis, translated
from services.store.events.known_events import SCANNED, escaped
from services.store.keys import Key, is_number, is_text, scored
from services.store.lease import TAKE
from services.store.signals.signal_record import Mark, SignalRecord, from_ms, record_from, to_ms
from services.store.signals.signal_scripts import (
    ANSWERED,
    BUFFER,
    BUFFERED,
    BUSY,
    CLAIM,
    DECIDE,
    DISCLAIM,
    INDEX,
    LATELY,
    OPEN,
    RECEIVED,
    RECORD,
    RELEASE,
    REOPEN,
    RUN,
    SEQUENCE,
    STAY,
    SUBMIT,
    TARGET,
    TOLD,
    WITNESS,
)
from services.store.unreadable import readable, reading

_LOOK_AGAIN_MS: Final = 3000
"""A received signal whose job is lost is looked at after this long."""

_ANSWERED_SECONDS: Final = 3600
_LATE_MS: Final = 3_600_000
"""A run that is heard of later than this after a signal for its key does not get that signal any more."""

_MOST_ANSWERED: Final = 20
_MOST_REPEATS: Final = 20
_MOST_LOOKED_AT: Final = 100
_PAGE: Final = 200
_OPEN_STATUSES: Final = frozenset({RECEIVED, Outcome.BUFFERED})
_MARGIN: Final = 0.8
"""The holder of a lease trusts it for less than the server does: clocks may run a little apart."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A wait for a key that was answered: signals that came while it lasted were meant for it."""

    run_id: str
    entered: datetime
    left: datetime
    by: str


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


class SignalStore:
    """Every method raises `TransientError` or `Backpressure` when Redis cannot do it now."""

    def __init__(self, redis: AsyncRedis, settings: ResumerSettings) -> None:
        self._redis = redis
        self._settings = settings
        self._submit = redis.register_script(SUBMIT)
        self._buffer = redis.register_script(BUFFER)
        self._decide = redis.register_script(DECIDE)
        self._claim = redis.register_script(CLAIM)
        self._disclaim = redis.register_script(DISCLAIM)
        self._reopen = redis.register_script(REOPEN)
        self._witness = redis.register_script(WITNESS)
        self._release = redis.register_script(RELEASE)
        self._take = redis.register_script(TAKE)

    @property
    def default_ttl_seconds(self) -> float:
        """How long a signal is kept that does not say so itself."""
        return self._settings.default_ttl_seconds

    @property
    def _retention_ms(self) -> int:
        return int(self._settings.retention_seconds * 1000)

    async def submit(self, signal: ResumeSignal, origin: str) -> tuple[bool, str]:
        """Take the signal in once; answers whether its id was new, and its status. Durable on return."""
        with translated():
            new, status = await self._submit(
                keys=[RECORD + signal.id, TARGET + signal.target],
                args=[signal.id, signal.model_dump_json(), origin, _LOOK_AGAIN_MS, _MOST_REPEATS],
            )
        return bool(new), status.decode()

    async def choose(self, id_: str) -> str:
        """The whole id of the signal that a person calls ``id_``: in ids made of events, the digest may be left out.

        Looks at every key in Redis if there is no signal with just this id. Raises `NotFound`, and `RejectedEvent`
        (``ambiguous``) where several signals could be meant.
        """
        with translated():
            if await self._redis.exists(RECORD + id_):
                return id_
            head, colon, rule = id_.rpartition(":")
            patterns = [escaped(id_) + "@*"] + ([f"{escaped(head)}@*:{escaped(rule)}"] if colon else [])
            keys: list[str] = [
                key.decode().removeprefix(RECORD)
                for pattern in patterns
                async for key in self._redis.scan_iter(match=RECORD + pattern, count=SCANNED)
            ]
        found = sorted(key for key in set(keys) if without_tail(key) == id_)
        if not found:
            raise NotFound(f"there is no signal {id_!r}")
        if len(found) > 1:
            raise RejectedEvent(
                "ambiguous", f"several signals are called {id_!r}: give the id, one of {', '.join(found)}"
            )
        return found[0]

    async def buffer(self, record: SignalRecord, reason: str) -> bool:
        """Keep the signal until somebody waits for it or it expires; false when the buffer is full."""
        with translated():
            answer = await self._buffer(
                keys=[RECORD + record.signal.id],
                args=[record.signal.id, to_ms(record.expires), self._settings.max_buffered, reason],
            )
        return int(answer) >= 0

    async def decide(self, record: SignalRecord, outcome: Outcome, reason: str) -> bool:
        """Give the signal its final outcome; false if it has one, or while one for a key is being applied to a run.

        One for every run that waits for a key is remembered for an hour: see `late_for`.
        """
        signal = record.signal
        for_all = signal.key is not None and signal.deliver == "all" and outcome is Outcome.APPLIED
        with translated():
            answer = await self._decide(
                keys=[RECORD + signal.id, TARGET + signal.target, LATELY + (signal.key or "")],
                args=[
                    signal.id,
                    outcome.value,
                    reason,
                    self._retention_ms,
                    _LATE_MS if for_all else 0,
                    "0" if signal.key is None else "1",
                ],
            )
        return bool(answer)

    async def claim(self, record: SignalRecord, run_id: str, mark: Mark, busy: Busy) -> bool:
        """Note that the signal is about to be applied; false if it is decided by now, or the lease is lost."""
        signal = record.signal
        with translated():
            answer = await self._claim(
                keys=[
                    RECORD + signal.id,
                    RUN + run_id,
                    _stay(run_id, mark.wait),
                    busy.key,
                    LATELY + (signal.key or ""),
                ],
                args=[signal.id, run_id, mark.model_dump_json(), self._retention_ms, busy.token, signal.deliver],
            )
        return bool(answer)

    async def disclaim(self, record: SignalRecord, run_id: str, mark: Mark) -> None:
        """Take a `claim` back: the run was not in that wait any more, and the signal did nothing to it."""
        with translated():
            await self._disclaim(
                keys=[RECORD + record.signal.id, RUN + run_id, _stay(run_id, mark.wait)],
                args=[record.signal.id, run_id],
            )

    async def reopen(self, record: SignalRecord, run_id: str, mark: Mark, reason: str) -> None:
        """Have a signal that was applied to the run applied to it again: Prefect has lost what it did."""
        signal, again = record.signal, mark.model_copy(update={"outcome": None, "reason": ""})
        with translated():
            await self._reopen(
                keys=[RECORD + signal.id, TARGET + signal.target],
                args=[signal.id, run_id, again.model_dump_json(), reason],
            )

    async def settle(self, record: SignalRecord, run_id: str, mark: Mark) -> None:
        """Note what came of the signal for that run."""
        with translated():
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.hset(RECORD + record.signal.id, f"run:{run_id}", mark.model_dump_json())
                pipeline.zadd(RUN + run_id, {record.signal.id: record.place})
                pipeline.pexpire(RUN + run_id, self._retention_ms)
                await pipeline.execute()

    async def witness(
        self, signal: ResumeSignal, origin: str, *, run_id: str, mark: Mark, reason: str, at: datetime
    ) -> bool:
        """Record what became of a wait without a signal, as a signal with the outcome of ``mark``; false if known."""
        args = [signal.id, signal.model_dump_json(), origin, run_id, mark.model_dump_json(), reason]
        with translated():
            answer = await self._witness(
                keys=[RECORD + signal.id, RUN + run_id],
                args=[*args, to_ms(at), self._retention_ms, mark.outcome or Outcome.APPLIED],
            )
        return bool(answer)

    async def look_again(self, signal_id: str, after_seconds: float) -> None:
        """Have the signal looked at again, if it is still open."""
        with translated():
            seconds, microseconds = await self._redis.time()
            due = seconds * 1000 + microseconds // 1000 + int(after_seconds * 1000)
            await self._redis.zadd(OPEN, {signal_id: due}, xx=True)

    async def get(self, signal_id: str) -> SignalRecord | None:
        """The signal, if it is known."""
        found = await self._records([signal_id])
        return found[0] if found else None

    async def get_many(self, signal_ids: Sequence[str]) -> list[SignalRecord]:
        """Those of the signals that are known."""
        return await self._records(signal_ids)

    async def open_for(self, targets: Iterable[str]) -> list[SignalRecord]:
        """The first open signals for any of the targets, in order."""
        wanted = list(targets)
        with translated():
            async with self._redis.pipeline(transaction=False) as pipeline:
                for target in wanted:
                    pipeline.zrange(TARGET + target, 0, _MOST_LOOKED_AT - 1)
                found = await pipeline.execute()
        ids = [
            member
            for target, members in zip(wanted, found, strict=True)
            for member in readable(TARGET + target, is_text, members)
        ]
        records = await self._records(ids)
        return sorted((record for record in records if record.open), key=lambda record: record.place)

    async def late_for(self, keys: Sequence[str], run_id: str, since: datetime) -> list[SignalRecord]:
        """Signals for the keys that were applied to other runs after ``since``, when this run waited for them unheard.

        In order; without those that have been applied to this run.
        """
        if not keys:
            return []
        with translated():
            async with self._redis.pipeline(transaction=False) as pipeline:
                for key in keys:
                    pipeline.zrangebyscore(LATELY + key, to_ms(since), "+inf", start=0, num=_MOST_LOOKED_AT)
                found = await pipeline.execute()
        ids = [
            member
            for key, members in zip(keys, found, strict=True)
            for member in readable(LATELY + key, is_text, members)
        ]
        records = [record for record in await self._records(ids) if not _settled(record, run_id)]
        return sorted(records, key=lambda record: record.place)

    async def with_signals(self, targets: Sequence[str]) -> set[str]:
        """Those of the targets that open signals are for, or were for lately (see `late_for`)."""
        if not targets:
            return set()
        with translated():
            async with self._redis.pipeline(transaction=False) as pipeline:
                for target in targets:
                    pipeline.exists(TARGET + target, LATELY + target.removeprefix("key "))
                found = await pipeline.execute()
        return {target for target, there in zip(targets, found, strict=True) if there}

    async def due(self, limit: int = 100) -> list[str]:
        """The ids of open signals that somebody must look at now."""
        with translated():
            seconds, microseconds = await self._redis.time()
            now = seconds * 1000 + microseconds // 1000
            found = await self._redis.zrangebyscore(OPEN, "-inf", now, start=0, num=limit)
        return list(readable(OPEN, is_text, found))

    async def buffered(self) -> AsyncIterator[list[SignalRecord]]:
        """Every buffered signal, in batches."""
        start = 0
        while True:
            with translated():
                found = await self._redis.zrange(BUFFERED, start, start + _PAGE - 1)
            if not found:
                return
            yield await self._records(list(readable(BUFFERED, is_text, found)))
            start += len(found)

    async def counts(self) -> tuple[int, int]:
        """How many signals are open, and how many of them buffered."""
        with translated():
            return await self._redis.zcard(OPEN), await self._redis.zcard(BUFFERED)

    async def newest(self, limit: int, *, outcome: str | None = None) -> list[SignalRecord]:
        """The newest signals, newest first."""
        found: list[SignalRecord] = []
        start = 0
        while len(found) < limit:
            with translated():
                members = await self._redis.zrevrange(INDEX, start, start + _PAGE - 1)
            if not members:
                break
            start += len(members)
            page = await self._records(list(readable(INDEX, is_text, members)))
            found += [record for record in page if outcome is None or record.status == outcome]
        return found[:limit]

    async def of_run(self, run_id: str) -> list[SignalRecord]:
        """The signals that had to do with the run, and those still open for its id, in order."""
        with translated():
            own = await self._redis.zrange(RUN + run_id, 0, -1)
            meant = await self._redis.zrange(f"{TARGET}run {run_id}", 0, -1)
        ids = [*readable(RUN + run_id, is_text, own), *readable(f"{TARGET}run {run_id}", is_text, meant)]
        records = await self._records(list(dict.fromkeys(ids)))
        return sorted(records, key=lambda record: record.place)

    async def answered(self, key: str, wait: Answered) -> None:
        """Remember for an hour that a wait for the key was answered."""
        entry = json.dumps([wait.run_id, to_ms(wait.entered), to_ms(wait.left), wait.by])
        with translated():
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.lpush(ANSWERED + key, entry)
                pipeline.ltrim(ANSWERED + key, 0, _MOST_ANSWERED - 1)
                pipeline.expire(ANSWERED + key, _ANSWERED_SECONDS)
                await pipeline.execute()

    async def answers_for(self, key: str) -> list[Answered]:
        """The waits for the key that were answered lately."""
        with translated():
            entries = await self._redis.lrange(ANSWERED + key, 0, -1)
        return list(readable(ANSWERED + key, _answered, entries))

    async def applied_by(self, run_id: str, wait: str) -> str | None:
        """The id of the signal that was last applied (or is being applied) to that wait of the run."""
        with translated():
            found = await self._redis.get(_stay(run_id, wait))
        with reading(_stay(run_id, wait)):
            return None if found is None else is_text(found)

    async def applied_to(self, waits: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Those of the waits (run id and wait id) that a signal was applied to, or is being applied to."""
        with translated():
            found = await self._redis.mget([_stay(run_id, wait) for run_id, wait in waits]) if waits else []
        return [wait for wait, signal_id in zip(waits, found, strict=True) if signal_id is not None]

    @asynccontextmanager
    async def busy(self, name: str) -> AsyncIterator[Busy]:
        """Be the only one at ``name`` for ``lease_seconds``, waiting while another is.

        Raises `TransientError` after waiting for longer than two leases.
        """
        key, token = BUSY + name, secrets.token_hex(8)
        lease = self._settings.lease_seconds
        give_up = time.monotonic() + 2 * lease
        pause = 0.005
        while True:
            asked = time.monotonic()
            with translated():
                ours = await self._take(keys=[key], args=[token, int(lease * 1000)])
            if ours:
                break
            if time.monotonic() > give_up:
                raise TransientError(f"another process is busy with {name}")
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.1)
        try:
            yield Busy(key=key, token=token, until=asked + lease * _MARGIN)
        finally:
            with contextlib.suppress(TransientError), translated():
                await asyncio.shield(self._release(keys=[key], args=[token]))

    async def outcome(self, signal_id: str, within_seconds: float, *, of: Collection[str]) -> SignalRecord | None:
        """The record once its status is one of ``of``, or as it is when the time is over."""
        deadline = time.monotonic() + within_seconds
        async with self._redis.pubsub() as told:
            with translated():
                await told.subscribe(TOLD + signal_id)
            while True:
                record = await self.get(signal_id)
                left = deadline - time.monotonic()
                if left <= 0 or (record is not None and record.status in of):
                    return record
                with translated():
                    await told.get_message(ignore_subscribe_messages=False, timeout=min(left, 1.0))

    async def forget(self) -> int:
        """Drop what is over ``max_records`` or expired from the index; answers how many."""
        with translated():
            surplus = await self._redis.zcard(INDEX) - self._settings.max_records
            window = max(surplus, _PAGE) + await self._redis.zcard(OPEN)  # open ones stay, however old they are
            members = await self._redis.zrange(INDEX, 0, window - 1)
            oldest = list(readable(INDEX, is_text, members))
            async with self._redis.pipeline(transaction=False) as pipeline:
                for member in oldest:
                    pipeline.hget(RECORD + member, "status")
                statuses: list[bytes | None] = await pipeline.execute()
            known = list(zip(oldest, statuses, strict=True))
            expired = [member for member, status in known if status is None]
            closed = [member for member, status in known if status and status.decode() not in _OPEN_STATUSES]
            gone = [*expired, *closed[: max(0, surplus - len(expired))]]
            if gone:
                async with self._redis.pipeline(transaction=True) as pipeline:
                    pipeline.zrem(INDEX, *gone)
                    pipeline.delete(*(RECORD + member for member in gone))
                    await pipeline.execute()
        return len(gone)

    async def _records(self, ids: Sequence[str]) -> list[SignalRecord]:
        if not ids:
            return []
        with translated():
            async with self._redis.pipeline(transaction=False) as pipeline:
                for signal_id in ids:
                    pipeline.hgetall(RECORD + signal_id)
                found = await pipeline.execute()
        rows = [(signal_id, fields) for signal_id, fields in zip(ids, found, strict=True) if fields]
        return list(readable(lambda row: RECORD + row[0], lambda row: record_from(row[1]), rows))


def _stay(run_id: str, wait: str) -> str:
    return f"{STAY}{run_id} {wait}"


def _settled(record: SignalRecord, run_id: str) -> bool:
    mark = record.marks.get(run_id)
    return mark is not None and mark.outcome is not None


def _answered(entry: bytes) -> Answered:
    run_id, entered, left, by = json.loads(entry)
    if not (isinstance(run_id, str) and isinstance(by, str)):
        raise TypeError("not a wait that was answered")
    return Answered(run_id=run_id, entered=from_ms(entered), left=from_ms(left), by=by)


KEYS: Final = (
    Key(
        RECORD + "*",
        "hash",
        "signal with its outcome",
        "resumer.retention_seconds after its outcome",
        record_from,
        whole=True,
    ),
    Key(SEQUENCE, "string", "number of signals so far", "for good", is_number),
    Key(INDEX, "zset", "id of a known signal", "resumer.max_records", scored()),
    Key(OPEN, "zset", "id of an open signal", "until its outcome", scored()),
    Key(BUFFERED, "zset", "id of a buffered signal", "until its outcome", scored()),
    Key(TARGET + "*", "zset", "id of an open signal for one run or key", "until its outcome", scored()),
    Key(RUN + "*", "zset", "id of a signal that had to do with a run", "resumer.retention_seconds", scored()),
    Key(STAY + "*", "string", "id of the signal applied to a wait", "resumer.retention_seconds", is_text),
    Key(ANSWERED + "*", "list", "wait for a key that was answered", "an hour", _answered),
    Key(LATELY + "*", "zset", "id of a signal applied to all that wait for a key", "an hour", scored()),
    Key(BUSY + "*", "string", "lease on a run", "resumer.lease_seconds"),
)
