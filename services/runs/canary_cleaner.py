"""Deletes what the canary's flights leave in Prefect and in Redis."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, Final

from events.errors import Backpressure, NotFound, TransientError
from services.common.backoff import Backoff, heed_cancellation
from services.prefect_api.client import PrefectApi
from services.store.canary.flights import CanaryRecords
from services.store.connection import AsyncRedis

TURN_SECONDS: Final = 2.0


class CanaryCleaner:
    """One of any number: each flight's remains are deleted by one of them."""

    def __init__(self, redis: AsyncRedis, *, prefect: PrefectApi) -> None:
        self._records = CanaryRecords(redis)
        self._prefect = prefect
        self._trouble = Backoff("delete what the canary left", first_seconds=1, longest_seconds=30)

    async def run(self) -> None:
        """Delete until cancelled."""
        while True:
            try:
                await self._clean()
                self._trouble.worked()
            except (TransientError, Backpressure) as error:
                await self._trouble.after(error)
            await asyncio.sleep(TURN_SECONDS)
            heed_cancellation()

    async def _clean(self) -> None:
        while remains := await self._records.take_remains():
            try:
                for run_id in remains.run_ids:
                    with contextlib.suppress(NotFound):  # it is deleted
                        await self._prefect.request("DELETE", f"/flow_runs/{run_id}")
                await self._records.forget(remains)
            except (TransientError, Backpressure):
                await self._records.leave(remains)
                raise

    def status(self) -> Mapping[str, Any]:
        """Degraded while it cannot delete."""
        return {"degraded": self._trouble.trouble} if self._trouble.trouble else {}
