"""How much of the streams stays: by age, by count, and never what somebody still has to handle."""

from __future__ import annotations

import time
from collections.abc import Iterable

from redis.exceptions import ResponseError

from services.store.connection import AsyncRedis, translated
from services.store.journal import order, position_at, text


async def trim_stream(
    redis: AsyncRedis,
    stream: str,
    *,
    retention_seconds: float,
    keep: Iterable[str] = (),
    max_entries: int | None = None,
) -> str | None:
    """Drop what is older than ``retention_seconds`` (or beyond ``max_entries``) and acknowledged by every group.

    Nothing at or after a position of ``keep`` goes, whatever its age. Answers the lowest position that may remain.
    A stream without a group is trimmed by age and count alone.
    """
    with translated():
        try:
            groups = await redis.xinfo_groups(stream)
        except ResponseError:
            return None
        bounds = [order(position) for position in keep]
        for group in groups:
            pending = await redis.xpending(stream, group["name"])
            if pending["pending"]:
                bounds.append(order(text(pending["min"])))
            first, second = order(text(group["last-delivered-id"]))
            bounds.append((first, second + 1))
        oldest = order(position_at(time.time() - retention_seconds))
        if max_entries is not None:
            excess = int(await redis.xlen(stream)) - max_entries
            if excess > 0:
                oldest = max(oldest, await _after(redis, stream, excess))
        first, second = min([oldest, *bounds])
        await redis.xtrim(stream, minid=f"{first}-{second}", approximate=False)
    return f"{first}-{second}"


async def _after(redis: AsyncRedis, stream: str, count: int) -> tuple[int, int]:
    """The position behind the first ``count`` entries, found in steps that do not hold the server up."""
    start, last = "-", "0-0"
    while count > 0:
        rows = await redis.xrange(stream, min=start, count=min(count, 1000))
        if not rows:
            break
        count -= len(rows)
        last = text(rows[-1][0])
        start = f"({last}"
    first, second = order(last)
    return first, second + 1
