"""Leases: rights that one process at a time holds; a process that lost one can detect that another has it."""

from __future__ import annotations

import secrets
import time
from typing import Final

from services.store.connection import AsyncRedis, replicas_to_wait_for
from services.store.keys import Key, is_number
from services.store.scripts import Script, run_and_replicate

LEASE: Final = "sluice:lease:"
"""Prefix of the key with the holder's token while the lease runs; the key with ``:token`` appended counts holders."""

_MOST_STEP: Final = 1_000_000
"""Two primaries that know nothing of each other hardly give two holders one number: the step to it is random."""

_MARGIN: Final = 0.9
"""The holder trusts its lease for less than the server does: clocks may run a little apart."""

TAKE: Final = Script("take_lease")
RELEASE: Final = Script("release_lease")
_ACQUIRE: Final = Script("acquire_lease")
_RENEW: Final = Script("renew_lease")


def now() -> float:
    """Return seconds on a clock that continues while the machine is suspended, where the system has one."""
    boot_time = getattr(time, "CLOCK_BOOTTIME", None)
    return time.clock_gettime(boot_time) if boot_time is not None else time.monotonic()


class Lease:
    """The right ``name``, held by at most one process for ``ttl_seconds`` from its last renewal.

    Each holder gets a higher token. Up to `deadline` (on this machine's clock, see `now`) nobody else can have become
    the holder; after that only `renew` shows it. With ``confirmed``, the deadline is set only when as many replicas as
    in the settings hold the renewal, because a primary that a failover has replaced grants leases too until it hears of
    that. Every method raises `TransientError` or `Backpressure`.
    """

    def __init__(self, redis: AsyncRedis, name: str, *, ttl_seconds: float, confirmed: bool = False) -> None:
        self._redis = redis
        self._confirmed = confirmed and replicas_to_wait_for(redis).number > 0
        self._keys = {"lease": LEASE + name, "counter": f"{LEASE}{name}:token"}
        self._ttl_seconds = ttl_seconds
        self.token = 0
        self.deadline = 0.0

    @property
    def certain(self) -> bool:
        """Whether this process is the only holder, without asking the server."""
        return self.token != 0 and now() < self.deadline

    async def acquire(self) -> bool:
        """Become the holder if there is none."""
        asked = now()
        step = 1 + secrets.randbelow(_MOST_STEP)
        self.token = int(await _ACQUIRE(self._redis, **self._keys, life_ms=self._ttl_ms, step=step))
        self.deadline = asked + self._ttl_seconds * _MARGIN if self.token and not self._confirmed else 0.0
        return self.token != 0

    async def renew(self) -> bool:
        """Renew the lease; false if another process has held it since, and then it is lost."""
        asked = now()
        values = {**self._keys, "holder": self.token, "life_ms": self._ttl_ms}
        renewal = run_and_replicate(self._redis, _RENEW, **values) if self._confirmed else _RENEW(self._redis, **values)
        ours = bool(await renewal)
        if ours:
            self.deadline = asked + self._ttl_seconds * _MARGIN
        else:
            self.token = 0
        return ours

    async def release(self) -> None:
        """Give the lease up, so that the next holder can begin at once."""
        if self.token:
            await RELEASE(self._redis, lease=self._keys["lease"], holder=self.token)
            self.token = 0

    @property
    def _ttl_ms(self) -> int:
        return int(self._ttl_seconds * 1000)


KEYS: Final = (
    Key(LEASE + "*", "string", "token of a lease's holder", "until the lease runs out"),
    Key(LEASE + "*:token", "string", "number of a lease's holders so far", "for good", is_number),
)
