"""Leases: one process at a time does something, and whoever was late can find out that another has begun."""

from __future__ import annotations

import time
from typing import Final

from services.store.connection import EVEN_WHEN_FULL, AsyncRedis, translated
from services.store.keys import Key, is_number
from services.store.unreadable import EXPECT

LEASE: Final = "sluice:lease:"
"""Prefix of the key that holds the holder's token while the lease runs; behind it ``:token`` counts the holders."""

_MARGIN: Final = 0.9
"""The holder trusts its lease for less than the server does: clocks may run a little apart."""

# Lua: whether somebody holds the lease. What never runs out, or not within an hour, is none: no lease is that long.
TAKEN: Final = (
    EXPECT
    + """
local function taken(key)
  expect('string', key)
  local left = redis.call('PTTL', key)
  return left >= 0 and left <= 3600000
end
"""
)

TAKE: Final = (
    TAKEN
    + """
if taken(KEYS[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
)
"""KEYS: a lease; ARGV: what its holder is known by, time to live in ms. Answers whether it is the caller's now."""

# KEYS: lease, counter; ARGV: time to live in ms. Answers the new holder's token, or 0 when another holds the lease.
_ACQUIRE: Final = (
    TAKEN
    + """
expect('string', KEYS[2])
if taken(KEYS[1]) then return 0 end
local token = redis.call('INCR', KEYS[2])
redis.call('SET', KEYS[1], token, 'PX', ARGV[1])
return token
"""
)

# ARGV: time to live in ms, token. Answers 1 while nobody has held the lease since the token was given, even if it ran
# out in between.
_RENEW: Final = """
if redis.call('GET', KEYS[2]) ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[1])
return 1
"""

_RELEASE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


def now() -> float:
    """Seconds on a clock that goes on while the machine is suspended, where the system has one."""
    boot_time = getattr(time, "CLOCK_BOOTTIME", None)
    return time.clock_gettime(boot_time) if boot_time is not None else time.monotonic()


class Lease:
    """The right ``name``, held by at most one process for ``ttl_seconds`` from its last renewal.

    Each holder gets a higher token. Up to `deadline` (on this machine's clock, see `now`) nobody else can have
    become the holder; later only `renew` can tell. Every method raises `TransientError` or `Backpressure`.
    """

    def __init__(self, redis: AsyncRedis, name: str, *, ttl_seconds: float) -> None:
        self._keys = [LEASE + name, f"{LEASE}{name}:token"]
        self._ttl_seconds = ttl_seconds
        self._acquire = redis.register_script(EVEN_WHEN_FULL + _ACQUIRE)
        self._renew = redis.register_script(EVEN_WHEN_FULL + _RENEW)
        self._release = redis.register_script(_RELEASE)
        self.token = 0
        self.deadline = 0.0

    @property
    def certain(self) -> bool:
        """Whether this process is the only holder, without asking the server."""
        return self.token != 0 and now() < self.deadline

    async def acquire(self) -> bool:
        """Become the holder if nobody is."""
        asked = now()
        with translated():
            self.token = int(await self._acquire(keys=self._keys, args=[self._ttl_ms]))
        self.deadline = asked + self._ttl_seconds * _MARGIN if self.token else 0.0
        return self.token != 0

    async def renew(self) -> bool:
        """Go on holding; false if another has held the lease since, and then it is not ours any more."""
        asked = now()
        with translated():
            ours = bool(await self._renew(keys=self._keys, args=[self._ttl_ms, self.token]))
        if ours:
            self.deadline = asked + self._ttl_seconds * _MARGIN
        else:
            self.token = 0
        return ours

    async def release(self) -> None:
        """Let the next holder begin at once."""
        if self.token:
            with translated():
                await self._release(keys=self._keys, args=[self.token])
            self.token = 0

    @property
    def _ttl_ms(self) -> int:
        return int(self._ttl_seconds * 1000)


KEYS: Final = (
    Key(LEASE + "*", "string", "token of a lease's holder", "until the lease runs out"),
    Key(LEASE + "*:token", "string", "number of a lease's holders so far", "for good", is_number),
)
