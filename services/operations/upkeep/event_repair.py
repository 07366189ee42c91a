"""Event repair: evaluates the rules again on events whose state in Redis was damaged, so that they finish."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import structlog

from events.errors import Backpressure, NotFound, TransientError
from services.common.backoff import Backoff, heed_cancellation
from services.prefect_api.client import PrefectApi
from services.prefect_api.dispatch import origins_of
from services.store.connection import AsyncRedis
from services.store.inspection.damaged_events import DamagedEvents

TURN_SECONDS: Final = 2.0

log = structlog.get_logger()


class EventRepair:
    """Repairs damaged events; any number of instances may run."""

    def __init__(self, redis: AsyncRedis, *, prefect: PrefectApi) -> None:
        self._damaged = DamagedEvents(redis)
        self._prefect = prefect
        self._trouble = Backoff("repair what was damaged in Redis", first_seconds=1, longest_seconds=30)
        self._again = 0

    async def run(self) -> None:
        """Repair until cancelled."""
        while True:
            try:
                await self.repair()
                self._trouble.worked()
            except (TransientError, Backpressure) as error:
                await self._trouble.after(error)
            await asyncio.sleep(TURN_SECONDS)
            heed_cancellation()

    async def repair(self) -> None:
        """One turn; raises `TransientError` or `Backpressure`."""
        for what, name in await self._damaged.some():
            identities = [name] if what == "event" else await self._events_of(name)
            count = await self._damaged.judge_again(what, name, identities)
            if count:
                self._again += count
                log.warning("damaged event evaluated again", damaged=f"{what} {name}", events=identities)

    def status(self) -> Mapping[str, Any]:
        """Return the number of events that this process had evaluated again."""
        return self._trouble.status(judged_again=self._again)

    async def _events_of(self, run_id: str) -> list[str]:
        try:
            return await origins_of(self._prefect, run_id)
        except NotFound:
            return []
