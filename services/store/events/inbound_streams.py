"""Moves elements of Redis lists into streams, where each has an id until the journal holds it."""

from __future__ import annotations

from typing import Final, Literal

from services.store.connection import AsyncRedis
from services.store.keys import Key
from services.store.scripts import Script

INBOUND: Final = "sluice:inbound:"
"""Prefix of the stream that belongs to a list; behind it the list's key."""

_MOVE: Final = Script("events/move_from_list")


class Inbound:
    """Moves elements of ``list_key``, from its end ``side``, to the stream `stream`."""

    def __init__(self, redis: AsyncRedis, list_key: str, *, side: Literal["left", "right"]) -> None:
        self._redis = redis
        self._list = list_key
        self._side = side
        self.stream = INBOUND + list_key

    async def move(self, count: int, *, max_bytes: int) -> int:
        """Move up to ``count`` elements (and about ``max_bytes``); returns how many.

        The stream never holds more than twice ``count``, so that the rest of a long list stays where its publishers see
        it. Raises `TransientError` or `Backpressure`; elements are in the list or in the stream, never in both.
        """
        return int(
            await _MOVE(
                self._redis,
                list=self._list,
                stream=self.stream,
                side=self._side,
                most=count,
                most_bytes=max_bytes,
                longest=2 * count,
            )
        )

    async def wait(self, seconds: float) -> bool:
        """Wait until the list has an element; false if it stayed empty."""
        side = self._side.upper()
        # Moving an element from one end to the same end changes nothing, and it blocks while there is none.
        return await self._redis.blmove(self._list, self._list, int(seconds) or 1, side, side) is not None


KEYS: Final = (Key(INBOUND + "*", "stream", "element of a list that is a source", "until it is in the journal"),)
