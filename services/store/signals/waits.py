"""Stores which runs wait for which keys, and when their deadlines and reminders are due."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple, Protocol, Self

from services.store.connection import AsyncRedis
from services.store.keys import WAITING_SINCE, Key, is_uuid, pair, scored
from services.store.signals.signal_record import to_ms
from services.store.unreadable import readable, readable_one

WAITING: Final = "sluice:signals:waiting"
"""Hash: run id to JSON of its last known wait's id, the keys it waits for, its memo."""

WAITING_FOR: Final = "sluice:signals:waiting-for:"
"""Prefix of the set of run ids that are known to wait for a key; the key follows."""

ALARMS: Final = "sluice:signals:alarms"
"""Alarms of suspended runs, by time (ms): ``deadline`` or ``reminder``, run id, wait id, separated by blanks."""

TAGGED: Final = "sluice:signals:tagged"
"""Set of the runs that have waited for keys and have not ended: they may still have a tag when they do."""

_PAGE: Final = 200


class Waiting(Protocol):
    """What is recorded of a waiting run."""

    @property
    def run_id(self) -> str: ...
    @property
    def wait_id(self) -> str: ...
    @property
    def keys(self) -> tuple[str, ...]: ...
    @property
    def memo(self) -> str: ...
    @property
    def since(self) -> datetime: ...
    @property
    def deadline(self) -> datetime | None: ...
    @property
    def reminder(self) -> datetime | None: ...


@dataclass(frozen=True, slots=True)
class Alarm:
    """A deadline or reminder of a run, valid while it is in that wait."""

    kind: Literal["deadline", "reminder"]
    run_id: str
    wait: str

    @property
    def member(self) -> str:
        """The alarm as it is stored in Redis."""
        return f"{self.kind} {self.run_id} {self.wait}"


class _Entry(NamedTuple):
    wait: str
    keys: tuple[str, ...]
    memo: str

    @classmethod
    def parse(cls, text: bytes) -> Self:
        wait, keys, memo = json.loads(text)
        if not (isinstance(keys, list) and all(isinstance(key, str) for key in keys) and isinstance(memo, str)):
            raise TypeError("not what a run waits for")
        return cls(_is_wait(wait), tuple(keys), memo)

    @property
    def text(self) -> str:
        return json.dumps(self)


class Waits:
    """Every method raises `TransientError` or `Backpressure` when Redis cannot do it now."""

    def __init__(self, redis: AsyncRedis) -> None:
        self._redis = redis

    async def fresh(self, runs: Sequence[Waiting]) -> dict[str, str | None]:
        """Return those of the runs whose wait, or its state, is new, with their last known wait."""
        before = await self._entries(runs)
        return {
            run.run_id: before[run.run_id].wait if run.run_id in before else None
            for run in runs
            if run.run_id not in before or before[run.run_id].memo != run.memo
        }

    async def began(self, runs: Sequence[Waiting]) -> None:
        """Record that the runs wait."""
        before = await self._entries(runs)
        fresh = {run.run_id: run for run in runs if run.run_id not in before or before[run.run_id].memo != run.memo}
        async with self._redis.pipeline(transaction=True) as pipeline:
            for run in fresh.values():
                for key in before[run.run_id].keys if run.run_id in before else ():
                    pipeline.srem(WAITING_FOR + key, run.run_id)
                for key in run.keys:
                    pipeline.sadd(WAITING_FOR + key, run.run_id)
                    pipeline.sadd(TAGGED, run.run_id)
                pipeline.hset(WAITING, run.run_id, _Entry(run.wait_id, run.keys, run.memo).text)
                if run.deadline is not None:
                    pipeline.zadd(ALARMS, {Alarm("deadline", run.run_id, run.wait_id).member: to_ms(run.deadline)})
                if run.reminder is not None:
                    pipeline.zadd(ALARMS, {Alarm("reminder", run.run_id, run.wait_id).member: to_ms(run.reminder)})
            if runs:
                pipeline.zadd(WAITING_SINCE, {run.run_id: to_ms(run.since) for run in runs})
            await pipeline.execute()

    async def _entries(self, runs: Sequence[Waiting]) -> dict[str, _Entry]:
        known: Any = await self._redis.hmget(WAITING, [run.run_id for run in runs])
        rows = [(run.run_id, entry) for run, entry in zip(runs, known, strict=True) if entry]
        return dict(readable(WAITING, lambda row: (row[0], _Entry.parse(row[1])), rows))

    async def ended(self, run_id: str, wait: str) -> None:
        """Record that the run is not in that wait any more."""
        found: Any = await self._redis.hget(WAITING, run_id)
        entry = readable_one(WAITING, _Entry.parse, found)
        async with self._redis.pipeline(transaction=True) as pipeline:
            if entry is not None and entry.wait == wait:  # else it waits again by now
                pipeline.hdel(WAITING, run_id)
                for key in entry.keys:
                    pipeline.srem(WAITING_FOR + key, run_id)
            if entry is None or entry.wait == wait:
                pipeline.zrem(WAITING_SINCE, run_id)
            pipeline.zrem(ALARMS, *(Alarm(kind, run_id, wait).member for kind in ("deadline", "reminder")))
            await pipeline.execute()

    async def may_be_tagged(self, run_id: str) -> bool:
        """Whether the run waited for keys, and has not been recorded as `untagged`."""
        return bool(await self._redis.sismember(TAGGED, run_id))

    async def all_tagged(self) -> AsyncIterator[str]:
        """Return every run that `may_be_tagged`."""
        async for run_id in self._redis.sscan_iter(TAGGED, count=_PAGE):
            for known in readable(TAGGED, is_uuid, [run_id]):
                yield known

    async def untagged(self, run_id: str) -> None:
        """Record that the run has ended without a tag of a wait, or was deleted."""
        await self._redis.srem(TAGGED, run_id)

    async def wait_of(self, run_id: str) -> str | None:
        """Return the run's last known wait."""
        found: Any = await self._redis.hget(WAITING, run_id)
        return None if (entry := readable_one(WAITING, _Entry.parse, found)) is None else entry.wait

    async def memo_of(self, run_id: str) -> str | None:
        """Return the run's memo, if it is known to wait: a hint, which may be out of date."""
        found: Any = await self._redis.hget(WAITING, run_id)
        return None if (entry := readable_one(WAITING, _Entry.parse, found)) is None else entry.memo

    async def memos_for(self, key: str) -> list[str]:
        """Return the memos of the runs known to wait for the key: hints, and perhaps not all of them."""
        run_ids: Any = await self._redis.smembers(WAITING_FOR + key)
        found: Any = await self._redis.hmget(WAITING, list(run_ids)) if run_ids else []
        entries = readable(WAITING, _Entry.parse, filter(None, found))
        return [entry.memo for entry in entries if key in entry.keys]

    async def known(self) -> AsyncIterator[tuple[str, str]]:
        """Return every run that is known to wait, with the wait's id."""
        async for run_id, entry in self._redis.hscan_iter(WAITING, count=_PAGE):
            for known in readable(WAITING, _known, [(run_id, entry)]):
                yield known

    async def count(self) -> int:
        """Return the number of waiting runs."""
        return await self._redis.hlen(WAITING)

    async def due(self, now: datetime, limit: int = 100) -> list[Alarm]:
        """Return the alarms that are due."""
        found: Any = await self._redis.zrangebyscore(ALARMS, "-inf", to_ms(now), start=0, num=limit)
        return list(readable(ALARMS, _alarm, found))

    async def silence(self, alarms: Iterable[Alarm]) -> None:
        """Delete alarms that were handled."""
        members = [alarm.member for alarm in alarms]
        if members:
            await self._redis.zrem(ALARMS, *members)


def _known(row: tuple[bytes, bytes]) -> tuple[str, str]:
    return is_uuid(row[0]), _Entry.parse(row[1]).wait


def _alarm(member: bytes) -> Alarm:
    kind, run_id, wait = member.decode().split(" ")
    if kind not in {"deadline", "reminder"}:
        raise ValueError("not an alarm")
    return Alarm(kind, is_uuid(run_id), _is_wait(wait))  # type: ignore[arg-type]


def _is_wait(wait: object) -> str:
    if not isinstance(wait, str) or not wait.isprintable():
        raise TypeError("not the id of a wait")
    return wait


KEYS: Final = (
    Key(WAITING, "hash", "run that waits, and what for", "until the wait ends", pair(is_uuid, _Entry.parse)),
    Key(WAITING_SINCE, "zset", "id of a run that waits", "until the wait ends", scored(is_uuid)),
    Key(WAITING_FOR + "*", "set", "id of a run that waits for a key", "until the wait ends", is_uuid),
    Key(TAGGED, "set", "id of a run that may carry a tag of a wait", "until the run has ended without one", is_uuid),
    Key(ALARMS, "zset", "deadline or reminder of a wait", "until its time has come", scored(_alarm)),
)
