"""Decides which process inspects every key next, and records requests for an inspection."""

from __future__ import annotations

import contextlib
import time
from typing import Any, Final

from events.errors import Backpressure, TransientError
from services.store.connection import AsyncRedis, SyncRedis
from services.store.keys import Key, is_number
from services.store.lease import TAKE
from services.store.redis_errors import translated
from services.store.unreadable import readable_one

LOOKED: Final = "sluice:inspection:looked"
WANTED: Final = "sluice:inspection:wanted"
LOOKING: Final = "sluice:inspection:looking"

_LONGEST_LOOK_MS: Final = 60_000


class Looks:
    """Lets one process at a time check all keys. Raises `TransientError` or `Backpressure`."""

    def __init__(self, redis: AsyncRedis) -> None:
        self._redis = redis

    async def last_ms(self) -> int:
        """Return when the last check of all keys began, in milliseconds since the epoch; 0 if that is not known."""
        found: Any = await self._redis.get(LOOKED)
        return readable_one(LOOKED, is_number, found) or 0

    async def wanted_ms(self) -> int:
        """Return when a process that may not check all keys last requested it; 0 if none did."""
        found: Any = await self._redis.get(WANTED)
        return readable_one(WANTED, is_number, found) or 0

    async def ask(self) -> None:
        """Request that the router checks all keys."""
        await self._redis.set(WANTED, time.time_ns() // 1_000_000)

    async def begin(self) -> bool:
        """Whether it is this process's turn."""
        return bool(await TAKE(self._redis, lease=LOOKING, holder="1", life_ms=_LONGEST_LOOK_MS))

    async def end(self, began_ms: int, *, rest_ms: int) -> None:
        """Record the check, and allow the next one after a rest."""
        await self._redis.set(LOOKED, began_ms)
        await self._redis.pexpire(LOOKING, max(1, rest_ms))


def ask_for_a_look(redis: SyncRedis) -> None:
    """`Looks.ask` on a blocking connection; does nothing if Redis is away."""
    with contextlib.suppress(TransientError, Backpressure), translated():
        redis.set(WANTED, time.time_ns() // 1_000_000)


KEYS: Final = (
    Key(WANTED, "string", "time at which a look at everything was asked for", "for good", is_number),
    Key(LOOKED, "string", "time of the last look at everything", "for good", is_number),
    Key(LOOKING, "string", "turn to look at everything", "the look, and a rest after it"),
)
