"""Moves the files of ended runs back before the runs start again, as by Retry in Prefect's UI."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from events.errors import Backpressure, NotFound, Refused, TransientError
from services.common.backoff import Backoff, ended
from services.prefect_api.client import PrefectApi
from services.prefect_api.run_calls import refuse_start
from services.prefect_api.runs import FINAL_TYPES, StateChange
from services.store.files.returns import FileReturns

SOMEBODY: Final = "Prefect UI or API"

_AT_ONCE: Final = 8
"""Number of scheduled runs that are looked up at the same time."""

log = structlog.get_logger()


class RetriedRuns:
    """Works beside the tracker, which does not wait for it; a second request for the same start has no effect."""

    def __init__(self, *, prefect: PrefectApi, returns: FileReturns) -> None:
        self._prefect = prefect
        self._returns = returns
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._backoff = Backoff("ask for the files of runs that start again", first_seconds=0.5, longest_seconds=5.0)

    def heard(self, change: StateChange) -> None:
        """Note that a run was scheduled, for the first time or again."""
        if change.run_id not in self._tasks:
            task = asyncio.create_task(self._scheduled(change), name=f"bring back the files of {change.run_id}")
            self._tasks[change.run_id] = task
            task.add_done_callback(lambda _: self._tasks.pop(change.run_id, None))

    async def close(self) -> None:
        """Stop; the next process that learns of the runs requests their files again."""
        await ended(*self._tasks.values())

    async def _scheduled(self, change: StateChange) -> None:
        """Work until it is known whether the run has files, and they are back."""
        while True:
            try:
                async with self._turns:
                    await self._bring_back(change)
            except (TransientError, Backpressure) as error:
                await self._backoff.after(error)
            else:
                self._backoff.worked()
                return

    async def _bring_back(self, change: StateChange) -> None:
        """Bring the files of a run's events back before it starts again, or refuse its start with the reason."""
        run = await self._returns.runs.get(change.run_id)
        if run is None or run.state not in FINAL_TYPES:
            return
        since_ms = int(change.occurred.timestamp() * 1000)
        try:
            for identity, _ in run.events:
                await self._returns.bring_back(identity, runs=[run.run_id], by=SOMEBODY, since_ms=since_ms)
        except Refused as error:
            log.warning("a run does not start again", run_id=change.run_id, reason=error.reason)
            await self._refuse(change.run_id, f"Not started again: {error.reason}")

    async def _refuse(self, run_id: str, reason: str) -> None:
        try:
            await refuse_start(self._prefect, run_id, reason=reason)
        except (NotFound, TransientError) as error:
            log.warning("the start of a run could not be refused", run_id=run_id, error=str(error))
