"""Reads signals by id, target, key, run and state."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from events.identity import without_tail
from events.short_ids import LEAST, the_one
from services.store.connection import AsyncRedis, ask_each
from services.store.events.known_events import SCANNED, escaped
from services.store.keys import BUFFERED, is_text, is_uuid
from services.store.redis_errors import translated
from services.store.signals.signal_keys import (
    ANSWERED,
    INDEX,
    LATELY,
    OPEN,
    RECORD,
    RUN,
    TARGET,
    TOLD,
    WAITED,
    stay_key,
)
from services.store.signals.signal_record import Answered, SignalRecord, from_ms, record_from, to_ms
from services.store.unreadable import readable, reading

_MOST_LOOKED_AT: Final = 100
_PAGE: Final = 200


class SignalQueries:
    """Reads signals; every method raises `TransientError` when Redis cannot do it now."""

    def __init__(self, redis: AsyncRedis) -> None:
        self._redis = redis

    async def choose(self, id_: str) -> str:
        """Return the whole id of the signal with ``id_``: in ids made of events, the digest may be left out.

        The beginning of an id suffices if only one signal has it. Scans every key in Redis if there is no signal with
        exactly this id. Raises `NotFound`, and `Refused` (``ambiguous``) if several signals match.
        """
        if await self._redis.exists(RECORD + id_):
            return id_
        head, colon, rule = id_.rpartition(":")
        patterns = [escaped(id_) + "*"] if len(id_) >= LEAST else [escaped(id_) + "@*"]
        patterns += [f"{escaped(head)}@*:{escaped(rule)}"] if colon else []
        keys: list[str] = [
            key.decode().removeprefix(RECORD)
            for pattern in patterns
            async for key in self._redis.scan_iter(match=RECORD + pattern, count=SCANNED)
        ]
        called = {key for key in keys if without_tail(key) == id_}
        return the_one(called or set(keys), id_, what="signal")

    async def get(self, signal_id: str) -> SignalRecord | None:
        """Return the signal, if it is known."""
        found = await self.get_many([signal_id])
        return found[0] if found else None

    async def get_many(self, signal_ids: Sequence[str]) -> list[SignalRecord]:
        """Return those of the signals that are known, in their order."""
        found = await ask_each(self._redis, lambda pipeline, id_: pipeline.hgetall(RECORD + id_), signal_ids)
        rows = [row for row in found if row[1]]
        return list(readable(lambda row: RECORD + row[0], lambda row: record_from(row[1]), rows))

    async def open_for(self, targets: Iterable[str]) -> list[SignalRecord]:
        """Return the first open signals for any of the targets, in order."""
        found = await ask_each(
            self._redis, lambda pipeline, target: pipeline.zrange(TARGET + target, 0, _MOST_LOOKED_AT - 1), targets
        )
        ids = [member for target, members in found for member in readable(TARGET + target, is_text, members)]
        return sorted((record for record in await self.get_many(ids) if record.open), key=lambda record: record.place)

    async def late_for(self, keys: Sequence[str], run_id: str, since: datetime) -> list[SignalRecord]:
        """Return signals for the keys that were applied to other runs after ``since``, the begin of this run's wait.

        In order, without those that have been applied to this run: for a run whose wait becomes known late.
        """
        found = await ask_each(
            self._redis,
            lambda pipeline, key: pipeline.zrangebyscore(
                LATELY + key, to_ms(since), "+inf", start=0, num=_MOST_LOOKED_AT
            ),
            keys,
        )
        ids = [member for key, members in found for member in readable(LATELY + key, is_text, members)]
        records = [record for record in await self.get_many(ids) if not _settled(record, run_id)]
        return sorted(records, key=lambda record: record.place)

    async def with_signals(self, targets: Sequence[str]) -> set[str]:
        """Return those of the targets that have open signals, or had some recently (see `late_for`)."""
        found = await ask_each(
            self._redis,
            lambda pipeline, target: pipeline.exists(TARGET + target, LATELY + target.removeprefix("key ")),
            targets,
        )
        return {target for target, there in found if there}

    async def due(self, limit: int = 100) -> list[str]:
        """Return the ids of open signals that are due."""
        if not await self._redis.zcard(OPEN):  # twice a second, and nearly always
            return []
        found = await self._redis.zrangebyscore(OPEN, "-inf", await self._server_ms(), start=0, num=limit)
        return list(readable(OPEN, is_text, found))

    async def buffered(self) -> AsyncIterator[list[SignalRecord]]:
        """Every buffered signal, in batches."""
        start = 0
        while True:
            found = await self._redis.zrange(BUFFERED, start, start + _PAGE - 1)
            if not found:
                return
            yield await self.get_many(list(readable(BUFFERED, is_text, found)))
            start += len(found)

    async def _server_ms(self) -> int:
        """Return the server's time, which all resumers use, in milliseconds since the epoch."""
        seconds, microseconds = await self._redis.time()
        return seconds * 1000 + microseconds // 1000

    async def counts(self) -> tuple[int, int]:
        """Return the number of open signals, and of buffered ones among them."""
        return await self._redis.zcard(OPEN), await self._redis.zcard(BUFFERED)

    async def newest(
        self, limit: int, *, wanted: Callable[[SignalRecord], bool] = lambda _record: True, before: int | None = None
    ) -> list[SignalRecord]:
        """Return the newest signals that are ``wanted``, newest first; only those with a place before ``before``."""
        found: list[SignalRecord] = []
        start, high = 0, "+inf" if before is None else f"({before}"
        while len(found) < limit:
            members: Any = await self._redis.zrevrangebyscore(INDEX, high, "-inf", start=start, num=_PAGE)
            if not members:
                break
            start += len(members)
            page = await self.get_many(list(readable(INDEX, is_text, members)))
            found += filter(wanted, page)
        return found[:limit]

    async def of_run(self, run_id: str) -> list[SignalRecord]:
        """Return the signals that concerned the run, and those still open for its id, in order."""
        own = await self._redis.zrange(RUN + run_id, 0, -1)
        meant = await self._redis.zrange(f"{TARGET}run {run_id}", 0, -1)
        ids = [*readable(RUN + run_id, is_text, own), *readable(f"{TARGET}run {run_id}", is_text, meant)]
        records = await self.get_many(list(dict.fromkeys(ids)))
        return sorted(records, key=lambda record: record.place)

    async def answers_for(self, key: str) -> list[Answered]:
        """Return the waits for the key that were answered recently."""
        entries = await self._redis.lrange(ANSWERED + key, 0, -1)
        return list(readable(ANSWERED + key, Answered.parse, entries))

    async def waited_for(self, keys: Iterable[str]) -> dict[str, dict[str, datetime]]:
        """Return for each key the newest hundred runs that have waited for it, with the begin of their last wait."""
        found = await ask_each(
            self._redis, lambda pipeline, key: pipeline.zrange(WAITED + key, 0, -1, withscores=True), keys
        )
        return {
            key: dict(readable(WAITED + key, lambda row: (is_uuid(row[0]), from_ms(row[1])), rows))
            for key, rows in found
        }

    async def applied_by(self, run_id: str, wait: str) -> str | None:
        """Return the id of the signal last applied (or being applied) to that wait of the run."""
        found = await self._redis.get(stay_key(run_id, wait))
        with reading(stay_key(run_id, wait)):
            return None if found is None else is_text(found)

    async def applied_to(self, waits: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return those of the waits (run id and wait id) to which a signal was, or is being, applied."""
        found = await self._redis.mget([stay_key(run_id, wait) for run_id, wait in waits]) if waits else []
        return [wait for wait, signal_id in zip(waits, found, strict=True) if signal_id is not None]

    async def outcome(self, signal_id: str, within_seconds: float, *, of: Collection[str]) -> SignalRecord | None:
        """Return the record once its status is one of ``of``, or as it is when the time is over."""
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


def _settled(record: SignalRecord, run_id: str) -> bool:
    mark = record.marks.get(run_id)
    return mark is not None and mark.outcome is not None
