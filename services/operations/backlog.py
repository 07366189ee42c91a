"""The backlog: what waits, how much of it and since when; read from Redis, so it includes the work of dead roles."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from services.store.connection import AsyncRedis, text
from services.store.keys import (
    BUFFERED,
    DEAD,
    DISPATCH_QUEUE,
    DISPATCH_QUEUES,
    JOURNAL,
    ROUTER_GROUP,
    SIGNAL,
    WAITING_SINCE,
    is_queue_name,
    position_seconds,
)
from services.store.unreadable import readable

RUNS_QUEUES: Final = "sluice-runs"
RESUME_QUEUE: Final = "sluice-resume"
_MOST_BUFFERED: Final = 200
"""Number of buffered signals, those that expire first, among which the oldest is searched."""


@dataclass(frozen=True, slots=True)
class BacklogPlace:
    """The number of waiting entries in one place, and since when the oldest waits."""

    count: int = 0
    oldest_seconds: float | None = None

    def __add__(self, other: BacklogPlace) -> BacklogPlace:
        ages = [age for age in (self.oldest_seconds, other.oldest_seconds) if age is not None]
        return BacklogPlace(self.count + other.count, max(ages, default=None))

    def as_json(self) -> dict[str, Any]:
        """For `sluice status --json`."""
        age = self.oldest_seconds
        return {"count": self.count, "oldest_seconds": None if age is None else round(age, 1)}


@dataclass(frozen=True, slots=True)
class Backlog:
    """Everything that waits in Redis; each thing is counted in one place."""

    journal: BacklogPlace = BacklogPlace()
    """Events that no router has decided on."""
    dispatch: Mapping[str, BacklogPlace] = field(default_factory=dict)
    """Decided runs by dispatch queue."""
    runs: BacklogPlace = BacklogPlace()
    """Runs that wait for a slot."""
    resume: BacklogPlace = BacklogPlace()
    """Signals that no resumer has taken."""
    buffered: BacklogPlace = BacklogPlace()
    """Signals for which no run waits yet."""
    waits: BacklogPlace = BacklogPlace()
    """Runs that wait for an answer."""
    dead: BacklogPlace = BacklogPlace()
    """Dead letters, by their last failure."""

    def places(self) -> dict[str, BacklogPlace]:
        """The places by their names in the status, in the order of an event's path."""
        return {
            "journal": self.journal,
            "dispatch_queues": sum(self.dispatch.values(), BacklogPlace()),
            "runs_queue": self.runs,
            "waiting_runs": self.waits,
            "resume_queue": self.resume,
            "buffered_signals": self.buffered,
            "dead_letters": self.dead,
        }


async def read_backlog(redis: AsyncRedis) -> Backlog:
    """Read the backlog. Raises `TransientError` or `Backpressure`; unreadable data counts as nothing."""
    seconds, microseconds = await redis.time()
    now = seconds + microseconds / 1e6
    return Backlog(
        journal=await _journal(redis, now),
        dispatch=await _dispatch(redis, now),
        runs=await _jobs(redis, RUNS_QUEUES, now),
        resume=await _jobs(redis, RESUME_QUEUE, now),
        buffered=await _buffered(redis, now),
        waits=await _scored(redis, WAITING_SINCE, now),
        dead=await _scored(redis, DEAD, now),
    )


async def _ask(redis: AsyncRedis, fill: Callable[[Any], object]) -> list[Any]:
    """Return the results of a pipeline; None for a key of another type, which the inspector moves to quarantine."""
    pipeline = redis.pipeline(transaction=False)
    fill(pipeline)
    found = await pipeline.execute(raise_on_error=False) if len(pipeline) else []
    return [None if isinstance(one, Exception) else one for one in found]


async def _journal(redis: AsyncRedis, now: float) -> BacklogPlace:
    """Return the events that the router has not acknowledged: those not delivered yet, and those pending."""
    entries, groups, pending = await _ask(
        redis, lambda ask: (ask.xlen(JOURNAL), ask.xinfo_groups(JOURNAL), ask.xpending(JOURNAL, ROUTER_GROUP))
    )
    group = next((one for one in groups or () if text(one["name"]) == ROUTER_GROUP), None)
    lag = None if group is None else group.get("lag")
    unread = int(entries or 0) if lag is None else int(lag)
    in_hand = int(pending["pending"]) if pending else 0
    oldest = [text(pending["min"])] if in_hand and pending["min"] else []
    if unread:
        after = "-" if group is None else f"({text(group['last-delivered-id'])}"
        (rows,) = await _ask(redis, lambda ask: ask.xrange(JOURNAL, min=after, count=1))
        oldest += [text(rows[0][0])] if rows else []
    return BacklogPlace(unread + in_hand, _oldest(now, oldest, position_seconds))


async def _dispatch(redis: AsyncRedis, now: float) -> dict[str, BacklogPlace]:
    """Return the backlog of each dispatch queue that has one."""
    names = readable(DISPATCH_QUEUES, is_queue_name, await redis.smembers(DISPATCH_QUEUES))
    keys = {name: DISPATCH_QUEUE + name for name in sorted(names)}
    answers = await _ask(redis, lambda ask: [(ask.xlen(key), ask.xrange(key, count=1)) for key in keys.values()])
    return {
        name: BacklogPlace(int(count), max(0.0, now - position_seconds(text(rows[0][0]))))
        for name, count, rows in zip(keys, answers[::2], answers[1::2], strict=True)
        if count and rows
    }


async def _jobs(redis: AsyncRedis, prefix: str, now: float) -> BacklogPlace:
    """Return the backlog of the RQ queues with this prefix; RQ appends jobs, and takes the first."""
    queues = readable("rq:queues", text, await redis.smembers("rq:queues"))
    keys = [key for key in queues if key.startswith(f"rq:queue:{prefix}")]
    answers = await _ask(redis, lambda ask: [(ask.llen(key), ask.lindex(key, 0)) for key in keys])
    rows = [(key, job) for key, job in zip(keys, answers[1::2], strict=True) if job is not None]
    heads = list(readable(lambda row: str(row[0]), lambda row: text(row[1]), rows))
    enqueued = await _ask(redis, lambda ask: [ask.hget(f"rq:job:{job}", "enqueued_at") for job in heads])
    oldest = _oldest(now, enqueued, lambda at: datetime.fromisoformat(text(at)).timestamp())
    return BacklogPlace(sum(count or 0 for count in answers[::2]), oldest)


async def _buffered(redis: AsyncRedis, now: float) -> BacklogPlace:
    count, ids = await _ask(redis, lambda ask: (ask.zcard(BUFFERED), ask.zrange(BUFFERED, 0, _MOST_BUFFERED - 1)))
    signal_ids = list(readable(BUFFERED, text, ids or ()))
    received = await _ask(redis, lambda ask: [ask.hget(SIGNAL + signal_id, "received") for signal_id in signal_ids])
    return BacklogPlace(count or 0, _oldest(now, received, lambda at: int(at) / 1000))


async def _scored(redis: AsyncRedis, key: str, now: float) -> BacklogPlace:
    """Return the backlog of a sorted set by time in milliseconds."""
    count, rows = await _ask(redis, lambda ask: (ask.zcard(key), ask.zrange(key, 0, 0, withscores=True)))
    since = rows[0][1] / 1000 if rows else math.inf
    return BacklogPlace(count or 0, max(0.0, now - since) if math.isfinite(since) else None)


def _oldest(now: float, times: Iterable[Any], seconds: Callable[[Any], float]) -> float | None:
    """Return the age of the oldest of the readable times."""
    ages = []
    for at in times:
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            ages.append(max(0.0, now - seconds(at)))
    return max(ages, default=None)


def age_text(seconds: float | None) -> str:
    """Return an age for people: ``90 s``, ``12 min``, ``3 h``, ``2 d``."""
    seconds = seconds or 0.0
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
