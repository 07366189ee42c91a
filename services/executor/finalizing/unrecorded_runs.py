"""Finds the runs that a Sluice executor claimed and that nobody executes any more, without a record of it in Redis.

Redis may have lost the record, an earlier version may have forgotten the run, or it could not be written. Prefect says
that such a run is paused or running for as long as nobody says otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final

import structlog

from services.prefect_api.run_calls import CLAIMED

log = structlog.get_logger()

MESSAGE: Final = (
    "No process executes the run any more, and no executor knows of it: its machine, or the record of it, was lost."
)

__all__ = ["CLAIMED", "MESSAGE", "UnrecordedRuns"]


class UnrecordedRuns:
    """Looks at Prefect again and again; absence counts only once it has been seen for ``lost_seconds``."""

    def __init__(
        self,
        *,
        in_process: Callable[[Sequence[str]], Awaitable[list[str]]],
        claimed: Callable[[str], Awaitable[bool]],
        lost_seconds: float,
    ) -> None:
        """``in_process``: the runs of these deployments that need a process; ``claimed``: whether Sluice claimed it."""
        self._in_process = in_process
        self._claimed = claimed
        self._lost_seconds = lost_seconds
        self._since: dict[str, float] = {}

    async def look(self, deployment_ids: Sequence[str], held: Callable[[], Awaitable[Collection[str]]]) -> list[str]:
        """The runs that are lost. Raises `TransientError`."""
        found = await self._in_process(deployment_ids)
        known = await held()  # after the runs: a run that was begun in between is held
        now = time.monotonic()
        self._since = {run_id: self._since.get(run_id, now) for run_id in found if run_id not in known}
        lost = [run_id for run_id, since in self._since.items() if now - since >= self._lost_seconds]
        return [run_id for run_id in lost if await self._claimed(run_id)]
