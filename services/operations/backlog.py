"""What waits, how much of it and since when: read from Redis, so that it is known of roles that are dead, too."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from services.store.connection import AsyncRedis, text
from services.store.dead_letters import DEAD
from services.store.events.journal import ROUTER_GROUP, STREAM, position_seconds
from services.store.runs.dispatch_queues import DISPATCH_QUEUE, DispatchQueues
from services.store.signals.signal_keys import BUFFERED, RECORD
from services.store.signals.waits import WAITING_SINCE
from services.store.unreadable import readable

RUNS_QUEUES: Final = "sluice-runs"
RESUME_QUEUE: Final = "sluice-resume"
_MOST_BUFFERED: Final = 200
"""Of so many buffered signals, those that expire first, the oldest is looked for."""


@dataclass(frozen=True, slots=True)
class BacklogPlace:
    """How much waits in one place, and since when the oldest of it does."""

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
        """What waits, by what it is called in the status, in the order of an event's way."""
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
    """Read what waits. Raises `TransientError` or `Backpressure`; what cannot be read counts as nothing."""
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


async def _answers(pipeline: Any) -> list[Any]:
    """What the commands answer; None where a key holds something else, which the inspector moves away."""
    found = await pipeline.execute(raise_on_error=False)
    return [None if isinstance(one, Exception) else one for one in found]


async def _journal(redis: AsyncRedis, now: float) -> BacklogPlace:
    pipeline = redis.pipeline(transaction=False)
    pipeline.xlen(STREAM)
    pipeline.xinfo_groups(STREAM)
    pipeline.xpending(STREAM, ROUTER_GROUP)
    entries, groups, pending = await _answers(pipeline)
    group = next((one for one in groups or () if text(one["name"]) == ROUTER_GROUP), None)
    lag = None if group is None else group.get("lag")
    unread = int(entries or 0) if lag is None else int(lag)
    in_hand = int(pending["pending"]) if pending else 0
    oldest = [text(pending["min"])] if in_hand and pending["min"] else []
    if unread:
        after = "-" if group is None else f"({text(group['last-delivered-id'])}"
        pipeline = redis.pipeline(transaction=False)
        pipeline.xrange(STREAM, min=after, count=1)
        (rows,) = await _answers(pipeline)
        oldest += [text(rows[0][0])] if rows else []
    ages = [max(0.0, now - position_seconds(position)) for position in oldest]
    return BacklogPlace(unread + in_hand, max(ages, default=None))


async def _dispatch(redis: AsyncRedis, now: float) -> dict[str, BacklogPlace]:
    names = await DispatchQueues(redis).names()
    pipeline = redis.pipeline(transaction=False)
    for name in names:
        pipeline.xlen(DISPATCH_QUEUE + name)
        pipeline.xrange(DISPATCH_QUEUE + name, count=1)
    answers = await _answers(pipeline) if names else []
    return {
        name: BacklogPlace(int(count), max(0.0, now - position_seconds(text(rows[0][0]))))
        for name, count, rows in zip(names, answers[::2], answers[1::2], strict=True)
        if count and rows
    }


async def _jobs(redis: AsyncRedis, prefix: str, now: float) -> BacklogPlace:
    """Of the RQ queues whose names begin so; RQ puts jobs in at the end, and takes them out at the beginning."""
    queues = list(readable("rq:queues", text, await redis.smembers("rq:queues")))
    keys = [key for key in queues if key.startswith(f"rq:queue:{prefix}")]
    pipeline = redis.pipeline(transaction=False)
    for key in keys:
        pipeline.llen(key)
        pipeline.lindex(key, 0)
    answers = await _answers(pipeline) if keys else []
    rows = [(key, job) for key, job in zip(keys, answers[1::2], strict=True) if job is not None]
    heads = list(readable(lambda row: str(row[0]), lambda row: text(row[1]), rows))
    pipeline = redis.pipeline(transaction=False)
    for job in heads:
        pipeline.hget(f"rq:job:{job}", "enqueued_at")
    ages = []
    for enqueued in await _answers(pipeline) if heads else ():
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            ages.append(max(0.0, now - datetime.fromisoformat(text(enqueued)).timestamp()))
    return BacklogPlace(sum(count or 0 for count in answers[::2]), max(ages, default=None))


async def _buffered(redis: AsyncRedis, now: float) -> BacklogPlace:
    pipeline = redis.pipeline(transaction=False)
    pipeline.zcard(BUFFERED)
    pipeline.zrange(BUFFERED, 0, _MOST_BUFFERED - 1)
    count, ids = await _answers(pipeline)
    pipeline = redis.pipeline(transaction=False)
    signal_ids = list(readable(BUFFERED, text, ids or ()))
    for signal_id in signal_ids:
        pipeline.hget(RECORD + signal_id, "received")
    ages = []
    for received in await _answers(pipeline) if signal_ids else ():
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            ages.append(max(0.0, now - int(received) / 1000))
    return BacklogPlace(count or 0, max(ages, default=None))


async def _scored(redis: AsyncRedis, key: str, now: float) -> BacklogPlace:
    """Of a sorted set by time in milliseconds."""
    pipeline = redis.pipeline(transaction=False)
    pipeline.zcard(key)
    pipeline.zrange(key, 0, 0, withscores=True)
    count, rows = await _answers(pipeline)
    since = rows[0][1] / 1000 if rows else math.inf
    return BacklogPlace(count or 0, max(0.0, now - since) if math.isfinite(since) else None)


def age_text(seconds: float | None) -> str:
    """An age as a person reads it: ``90 s``, ``12 min``, ``3 h``, ``2 d``."""
    seconds = seconds or 0.0
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
