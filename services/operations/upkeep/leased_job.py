"""Work that one of many instances does at an interval: the one that holds the lease."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from events.errors import Backpressure, NotFound, Refused, TransientError
from services.common.backoff import Backoff, heed_cancellation
from services.store.lease import Lease

log = structlog.get_logger()

LEASE_SECONDS: Final = 30.0
TURN_SECONDS: Final = 20.0
"""The longest that a turn may take under such a lease: it ends before the lease does."""


async def run_leased(
    turn: Callable[[], Awaitable[object]],
    *,
    lease: Lease,
    seconds: float,
    trouble: Backoff,
    ended: Callable[[], None] = lambda: None,
    longest_turn_seconds: float | None = TURN_SECONDS,
) -> None:
    """Take a turn every ``seconds`` until cancelled, whenever this process holds ``lease``.

    A turn that fails or hangs is given up and repeated later; nobody waits for it. ``ended`` is called when another
    process may have taken over.
    """
    holding = False
    try:
        while True:
            try:
                holding = await (lease.renew() if holding else lease.acquire())
                if holding:
                    await asyncio.wait_for(turn(), longest_turn_seconds)
                else:
                    ended()
                trouble.worked()
            except (TransientError, Backpressure, NotFound, Refused, TimeoutError) as error:
                await trouble.after(error)
            except Exception as error:
                log.exception("a turn failed")  # a part that only reports must not end the role
                await trouble.after(error)
            heed_cancellation()
            await asyncio.sleep(seconds)
    finally:
        if holding:
            with contextlib.suppress(TransientError, Backpressure, TimeoutError):
                await asyncio.wait_for(lease.release(), 1)
