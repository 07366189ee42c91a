"""Deletes the runs, events and signals of past canaries in Prefect and in Redis."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from config.health import CANARY
from events.errors import Backpressure, NotFound, TransientError
from services.common.backoff import Backoff, heed_cancellation
from services.prefect_api.client import PAGE, PrefectApi
from services.store.canary.flights import CanaryRecords
from services.store.connection import AsyncRedis

TURN_SECONDS: Final = 2.0
STALE_TURN_SECONDS: Final = 60.0
STALE_AFTER: Final = timedelta(minutes=15)
"""Age after which a canary's run is deleted although no instance recorded it: one created after its canary had failed,
or whose sender died."""


class CanaryCleaner:
    """Any number of cleaners may run; each canary's remains are deleted by one of them."""

    def __init__(self, redis: AsyncRedis, *, prefect: PrefectApi) -> None:
        self._stale_at = 0.0
        self._records = CanaryRecords(redis)
        self._prefect = prefect
        self._trouble = Backoff("delete what the canary left", first_seconds=1, longest_seconds=30)

    async def run(self) -> None:
        """Delete until cancelled."""
        while True:
            try:
                await self._clean()
                if time.monotonic() >= self._stale_at:
                    self._stale_at = time.monotonic() + STALE_TURN_SECONDS
                    await self._delete_stale()
                self._trouble.worked()
            except (TransientError, Backpressure) as error:
                await self._trouble.after(error)
            await asyncio.sleep(TURN_SECONDS)
            heed_cancellation()

    async def _clean(self) -> None:
        """Delete what canaries have left in Prefect and Redis."""
        while remains := await self._records.take_remains():
            try:
                for run_id in remains.run_ids:
                    with contextlib.suppress(NotFound):  # it is deleted
                        await self._prefect.request("DELETE", f"/flow_runs/{run_id}")
                await self._records.forget(remains)
            except (TransientError, Backpressure):
                await self._records.leave(remains)
                raise

    async def _delete_stale(self) -> None:
        before = (datetime.now(UTC) - STALE_AFTER).isoformat()
        stale = {"tags": {"all_": [f"rule:{CANARY}"]}, "expected_start_time": {"before_": before}}
        for run in await self._prefect.request("POST", "/flow_runs/filter", json={"flow_runs": stale, "limit": PAGE}):
            with contextlib.suppress(NotFound):
                await self._prefect.request("DELETE", f"/flow_runs/{run['id']}")

    def status(self) -> Mapping[str, Any]:
        """Degraded while it cannot delete."""
        return {"degraded": self._trouble.trouble} if self._trouble.trouble else {}
