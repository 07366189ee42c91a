"""What only tells of the work goes on after its own faults, and ends no role."""

from __future__ import annotations

import asyncio

from services.common.backoff import Backoff
from services.operations.upkeep.leased_job import run_leased
from services.store.connection import AsyncRedis
from services.store.lease import Lease
from tests.support.waiting import eventually


async def test_a_turn_that_fails_by_a_fault_is_repeated(redis: AsyncRedis) -> None:
    turns = 0

    async def turn() -> None:
        nonlocal turns
        turns += 1
        if turns == 1:
            raise OverflowError("cannot convert float infinity to integer")

    async def taken_twice() -> bool:
        return turns > 1

    trouble = Backoff("tell", first_seconds=0.01, longest_seconds=0.01)
    lease = Lease(redis, "telling", ttl_seconds=5)
    job = asyncio.create_task(run_leased(turn, lease=lease, seconds=0.01, trouble=trouble, ended=lambda: None))
    await eventually(taken_twice, what="a second turn")
    job.cancel()
    await asyncio.gather(job, return_exceptions=True)
    assert trouble.trouble is None
