"""The inbound streams: where elements of Redis lists lie, each under an id, between their list and the journal."""

from __future__ import annotations

from typing import Final, Literal

from services.store.connection import AsyncRedis, translated
from services.store.keys import Key
from services.store.unreadable import EXPECT

INBOUND: Final = "sluice:inbound:"
"""Prefix of the stream that belongs to a list; behind it the list's key."""

# KEYS: list, stream; ARGV: side, how many elements and bytes at most, how long the stream may be.
# Each element leaves the list and gets its id (the entry's) in one step: a crash finds it in one of the two, once.
_MOVE: Final = (
    EXPECT
    + """
expect('stream', KEYS[2])
local room = math.min(tonumber(ARGV[2]), tonumber(ARGV[4]) - redis.call('XLEN', KEYS[2]))
local bytes = 0
local moved = 0
while moved < room and bytes < tonumber(ARGV[3]) do
  local element = redis.call('LINDEX', KEYS[1], ARGV[1] == 'left' and 0 or -1)
  if not element then break end
  redis.call('XADD', KEYS[2], '*', 'event', element)
  redis.call(ARGV[1] == 'left' and 'LPOP' or 'RPOP', KEYS[1])
  bytes = bytes + #element
  moved = moved + 1
end
return moved
"""
)


class Inbound:
    """The way of the elements of ``list_key`` into the stream `stream`, taken from ``side``."""

    def __init__(self, redis: AsyncRedis, list_key: str, *, side: Literal["left", "right"]) -> None:
        self._redis = redis
        self._list = list_key
        self._side = side
        self._script = redis.register_script(_MOVE)
        self.stream = INBOUND + list_key

    async def move(self, count: int, *, max_bytes: int) -> int:
        """Move up to ``count`` elements (and about ``max_bytes``); answers how many.

        The stream never holds more than twice ``count``, so that a long list stays where its publishers see it.
        Raises `TransientError` or `Backpressure`; elements are in the list or in the stream, never in both.
        """
        with translated():
            return int(
                await self._script(keys=[self._list, self.stream], args=[self._side, count, max_bytes, 2 * count])
            )

    async def wait(self, seconds: float) -> bool:
        """Wait until the list holds something; false if it stayed empty."""
        side = self._side.upper()
        with translated():
            # Moving an element from one end to the same end changes nothing, and it blocks while there is none.
            return await self._redis.blmove(self._list, self._list, int(seconds) or 1, side, side) is not None


KEYS: Final = (Key(INBOUND + "*", "stream", "element of a list that is a source", "until it is in the journal"),)
