"""A consumer group of a stream: each entry goes to one of its consumers, and to another one if that one dies."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

from redis.exceptions import ResponseError

from services.store.connection import AsyncRedis
from services.store.redis_errors import GroupGone
from services.store.scripts import Script

Entry: TypeAlias = tuple[bytes, Mapping[bytes, bytes]]
"""An entry's position in the stream, and its fields."""

_TIDY_SECONDS: Final = 30.0
_FORGET_CONSUMERS: Final = Script("forget_consumers")


class ConsumerGroup:
    """The consumer ``consumer`` of the group ``group`` of ``stream``, which is created when it is missing.

    Entries come in the stream's order and stay pending until they are acknowledged. After ``claim_idle_seconds``
    without a sign of life from its consumer an entry may be claimed; a consumer that has nothing pending is forgotten
    after ``forget_seconds``. Every method raises `TransientError` when Redis is out of reach and `Backpressure` when it
    is full.
    """

    def __init__(
        self,
        redis: AsyncRedis,
        stream: str,
        group: str,
        *,
        consumer: str,
        claim_idle_seconds: float,
        forget_seconds: float = 3600.0,
    ) -> None:
        self._redis = redis
        self._stream = stream
        self._group = group
        self._consumer = consumer
        self._claim_idle_ms = int(claim_idle_seconds * 1000)
        self._forget_ms = int(forget_seconds * 1000)
        self._claim_from: Any = "0-0"
        self._tidy_at = 0.0

    async def join(self) -> None:
        """Create the group and the stream if they are missing; the group begins with the stream's first entry."""
        try:
            await self._redis.xgroup_create(self._stream, self._group, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def read(self, *, count: int, block_seconds: float | None = None) -> list[Entry]:
        """Return at most ``count`` entries that no consumer has read; waits up to ``block_seconds`` for the first."""
        block_ms = None if block_seconds is None else max(1, int(block_seconds * 1000))
        try:
            return await self._read(">", count, block_ms)
        except GroupGone:
            await self.join()
            return await self._read(">", count, block_ms)

    async def own(self, *, count: int) -> list[Entry]:
        """Return entries that this consumer has not acknowledged: the response with them may have been lost."""
        return await self._read("0", count, None)

    async def claim(self, *, count: int) -> list[Entry]:
        """Claim entries of consumers without a sign of life for this one; empty when there are none (left)."""
        try:
            if time.monotonic() >= self._tidy_at:
                await self._forget_consumers()
            while True:
                self._claim_from, found, *_ = await self._redis.xautoclaim(
                    self._stream,
                    self._group,
                    self._consumer,
                    self._claim_idle_ms,
                    start_id=self._claim_from,
                    count=count,
                )
                if (entries := await self._there(found)) or self._claim_from == b"0-0":
                    return entries
        except GroupGone:
            await self.join()
            return []

    async def deliveries(self, entries: Sequence[Entry]) -> list[int]:
        """Return how often each of this consumer's pending entries, in order, was delivered."""
        rows: Any = await self._redis.xpending_range(
            self._stream,
            self._group,
            min=entries[0][0],
            max=entries[-1][0],
            count=len(entries) * 2,
            consumername=self._consumer,
        )
        times = {row["message_id"]: int(row["times_delivered"]) for row in rows}
        return [times.get(position, 1) for position, _ in entries]

    async def hold(self, positions: Sequence[bytes], *, idle_ms: int) -> None:
        """Set the idle time of the entries to ``idle_ms``: 0 keeps other consumers from claiming them."""
        await self._redis.xclaim(
            self._stream, self._group, self._consumer, 0, list(positions), idle=idle_ms, justid=True
        )

    async def acknowledge(self, positions: Sequence[bytes | str], *, delete: bool = False) -> int:
        """Acknowledge the entries, and delete them from the stream on request; return how many were pending."""
        return int((await self._acknowledge(positions, delete=delete, count=0))[0]) if positions else 0

    async def acknowledge_and_read(
        self, positions: Sequence[bytes], *, delete: bool = False, count: int
    ) -> list[Entry]:
        """`acknowledge`, and `read` without waiting, in one round trip."""
        return _entries((await self._acknowledge(positions, delete=delete, count=count))[-1])

    async def _acknowledge(self, positions: Sequence[bytes | str], *, delete: bool, count: int) -> list[Any]:
        pipeline = self._redis.pipeline(transaction=delete or count > 0)
        pipeline.xack(self._stream, self._group, *positions)
        if delete:
            pipeline.xdel(self._stream, *positions)
        if count:
            pipeline.xreadgroup(self._group, self._consumer, {self._stream: ">"}, count=count)
        return await pipeline.execute()

    async def _read(self, start: str, count: int, block_ms: int | None) -> list[Entry]:
        while True:
            answer: Any = await self._redis.xreadgroup(
                self._group, self._consumer, {self._stream: start}, count=count, block=block_ms
            )
            if (entries := await self._there(found := _entries(answer))) or not found:
                return entries

    async def _there(self, found: Sequence[tuple[bytes, Mapping[bytes, bytes] | None]]) -> list[Entry]:
        """Acknowledge entries that were deleted while pending, because nobody can handle them; return the others."""
        await self.acknowledge([position for position, fields in found if not fields])
        return [(position, fields) for position, fields in found if fields]

    async def _forget_consumers(self) -> None:
        self._tidy_at = time.monotonic() + _TIDY_SECONDS
        await _FORGET_CONSUMERS(self._redis, stream=self._stream, group=self._group, idle_ms=self._forget_ms)


def _entries(answer: Any) -> list[Any]:
    return list(answer[0][1]) if answer else []
