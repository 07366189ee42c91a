"""A lease is held by one at a time, and by nobody for ever."""

from __future__ import annotations

import pytest

from services.store.connection import AsyncRedis
from services.store.lease import LEASE, Lease
from services.store.unreadable import UnreadableKey


async def test_one_holds_it_at_a_time(redis: AsyncRedis) -> None:
    one, other = (Lease(redis, "x", ttl_seconds=60) for _ in range(2))
    assert await one.acquire()
    assert not await other.acquire()
    assert await one.renew()
    await one.release()
    assert await other.acquire()
    assert not await one.renew()


@pytest.mark.parametrize("milliseconds", [None, 10**12])
async def test_what_does_not_run_out_in_time_is_no_lease(redis: AsyncRedis, milliseconds: int | None) -> None:
    await redis.set(f"{LEASE}x", "evil", px=milliseconds)
    assert await Lease(redis, "x", ttl_seconds=60).acquire()


async def test_a_lease_of_another_type_is_said_to_be_unreadable(redis: AsyncRedis) -> None:
    await redis.hset(f"{LEASE}x", "a", "b")
    with pytest.raises(UnreadableKey):
        await Lease(redis, "x", ttl_seconds=60).acquire()
