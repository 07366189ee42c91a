"""Trims streams and histories by age and count; keeps everything that is still to be handled."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from redis.exceptions import ResponseError

from config.settings import HistorySettings
from services.store.connection import AsyncRedis, text
from services.store.events.event_history import unpacked
from services.store.events.history import FAILED, HISTORY, MATCHED_BY, UNMATCHED
from services.store.events.journal import STREAM, Broken, order, parse_entry, position_at
from services.store.events.open_effects import OPEN
from services.store.keys import Key, is_position
from services.store.runs.created_runs import RUN
from services.store.unreadable import readable, reading

FORGOTTEN: Final = "sluice:index:forgotten"
"""Up to where surplus histories were deleted: the journal's position, and the number of its entry, counted from the
first one ever.
"""

NEARLY_FULL: Final = 0.9
"""Share of ``maxmemory`` from which handled events are deleted early."""

_LEFT_WHEN_FULL: Final = 0.9
_STEP: Final = 1000


async def _nothing() -> Sequence[str]:
    return ()


async def trim_stream(
    redis: AsyncRedis,
    stream: str,
    *,
    retention_seconds: float,
    max_entries: int | None = None,
    keep: Callable[[], Awaitable[Sequence[str]]] = _nothing,
) -> int:
    """Delete entries older than ``retention_seconds`` (or beyond ``max_entries``) that every group has acknowledged.

    Entries at or after a position of ``keep`` stay, whatever their age; ``keep`` is called after the groups were read,
    so that an entry that passes from one to the other meanwhile is seen in either. A stream without a group is trimmed
    by age and count only. Returns the number of deleted entries.
    """
    bound = await _bound(redis, stream, retention_seconds=retention_seconds, max_entries=max_entries, keep=keep)
    return int(await redis.xtrim(stream, minid=bound, approximate=False))


async def forget_histories(redis: AsyncRedis, settings: HistorySettings) -> int:
    """Delete the histories of the oldest events beyond ``max_events``, except of unfinished ones; return their number.

    Histories that are too old expire by themselves.
    """
    try:
        info: Any = await redis.xinfo_stream(STREAM)
        mark: Any = await redis.get(FORGOTTEN)
    except ResponseError:
        return 0
    added, trimmed = int(info["entries-added"]), int(info["entries-added"]) - int(info["length"])
    with reading(FORGOTTEN):
        position, behind = _forgotten(mark)
    if behind < trimmed or not position:
        position, behind = "-", trimmed
    gone = 0
    while (excess := added - behind - settings.max_events) > 0:
        rows: Any = await redis.xrange(STREAM, min=position, count=min(_STEP, excess))
        if not rows:
            break
        gone += await _forget(redis, rows)
        behind += len(rows)
        position = f"({text(rows[-1][0])}"
        await redis.set(FORGOTTEN, f"{position} {behind}")
    return gone


async def relieve(redis: AsyncRedis, *, keep: Callable[[], Awaitable[Sequence[str]]]) -> int:
    """If Redis is nearly full, delete a tenth of the journal's handled events with their histories, whatever their age.

    This makes room for events that are still to be handled. Returns the number of deleted entries.
    """
    memory: Any = await redis.info("memory")
    if not memory["maxmemory"] or memory["used_memory"] < NEARLY_FULL * memory["maxmemory"]:
        return 0
    length = int(await redis.xlen(STREAM))
    if not length:
        return 0
    upto = await _bound(redis, STREAM, retention_seconds=0, max_entries=int(length * _LEFT_WHEN_FULL), keep=keep)
    position = "-"
    while rows := await redis.xrange(STREAM, min=position, max=f"({upto}", count=_STEP):
        await _forget(redis, rows)
        position = f"({text(rows[-1][0])}"
    return int(await redis.xtrim(STREAM, minid=upto, approximate=False))


async def prune_indices(redis: AsyncRedis, settings: HistorySettings) -> None:
    """Delete entries from the indices that are older than the history."""
    before = int((time.time() - settings.retention_seconds) * 1000)
    indices = [FAILED, UNMATCHED, *[text(key) async for key in redis.scan_iter(match=MATCHED_BY + "*", count=5000)]]
    for index in indices:
        await redis.zremrangebyscore(index, "-inf", before)
        excess = int(await redis.zcard(index)) - settings.max_events
        if excess > 0:
            await redis.zremrangebyrank(index, 0, excess - 1)


async def _forget(redis: AsyncRedis, rows: Sequence[Any]) -> int:
    """Delete the histories and run records of finished events among these entries; return the number of histories."""
    entries = [parse_entry(position, fields) for position, fields in rows]
    identities = [entry.event.identity for entry in entries if not isinstance(entry, Broken) and not entry.replay]
    pipeline = redis.pipeline(transaction=False)
    for identity in identities:
        pipeline.exists(OPEN + identity)
        pipeline.lrange(HISTORY + identity, 0, -1)
    answers = await pipeline.execute() if identities else []
    histories, runs = [], []
    for identity, is_open, lines in zip(identities, answers[::2], answers[1::2], strict=True):
        if not is_open and lines:
            histories.append(HISTORY + identity)
            stored = readable(HISTORY + identity, unpacked, lines)
            runs += [RUN + str(line[2]) for line in stored if line[:1] == ["r"] and len(line) > 2]  # noqa: PLR2004
    if histories:
        await redis.unlink(*histories, *runs)
    return len(histories)


async def _bound(
    redis: AsyncRedis,
    stream: str,
    *,
    retention_seconds: float,
    max_entries: int | None,
    keep: Callable[[], Awaitable[Sequence[str]]],
) -> str:
    """Return the first position that must stay."""
    bounds = []
    with contextlib.suppress(ResponseError):  # there is no such stream
        for group in await redis.xinfo_groups(stream):
            pending = await redis.xpending(stream, group["name"])
            if pending["pending"]:
                bounds.append(order(text(pending["min"])))
            first, second = order(text(group["last-delivered-id"]))
            bounds.append((first, second + 1))
    bounds += [order(position) for position in await keep()]
    oldest = order(position_at(time.time() - retention_seconds))
    if max_entries is not None:
        excess = int(await redis.xlen(stream)) - max_entries
        behind = await _after(redis, stream, excess) if excess > 0 else (0, 0)
        oldest = max(oldest, behind) if retention_seconds else behind
    first, second = min([oldest, *bounds])
    return f"{first}-{second}"


async def _after(redis: AsyncRedis, stream: str, count: int) -> tuple[int, int]:
    """Return the position after the first ``count`` entries, found in steps that do not block the server for long."""
    start, last = "-", "0-0"
    while count > 0:
        rows: Any = await redis.xrange(stream, min=start, count=min(count, _STEP))
        if not rows:
            break
        count -= len(rows)
        last = text(rows[-1][0])
        start = f"({last}"
    first, second = order(last)
    return first, second + 1


def _forgotten(mark: bytes | None) -> tuple[str, int]:
    """Return where to continue, and the number of the entry there."""
    if mark is None:
        return "", 0
    position, number = text(mark).split(" ")
    is_position(position.removeprefix("("))
    return position, int(number)


KEYS: Final = (Key(FORGOTTEN, "string", "mark of the histories that were taken away", "for good", _forgotten),)
