"""Finds lost runs that are not in the register of executions.

Redis may have lost the record, or it could not be written. Prefect shows such a run as paused or running until somebody
sets another state.
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
    """Compares Prefect with the register periodically; a run is lost when it had no record for ``lost_seconds``."""

    def __init__(
        self,
        *,
        in_process: Callable[[Sequence[str]], Awaitable[list[str]]],
        claimed: Callable[[str], Awaitable[bool]],
        lost_seconds: float,
    ) -> None:
        """``in_process`` returns runs of deployments that need a process; ``claimed``, whether Sluice claimed one."""
        self._in_process = in_process
        self._claimed = claimed
        self._lost_seconds = lost_seconds
        self._since: dict[str, float] = {}

    async def look(self, deployment_ids: Sequence[str], held: Callable[[], Awaitable[Collection[str]]]) -> list[str]:
        """Return the ids of the lost runs. Raises `TransientError`."""
        found = await self._in_process(deployment_ids)
        known = await held()  # read after the runs: a run that was begun in between is in the register
        now = time.monotonic()
        self._since = {run_id: self._since.get(run_id, now) for run_id in found if run_id not in known}
        lost = [run_id for run_id, since in self._since.items() if now - since >= self._lost_seconds]
        return [run_id for run_id in lost if await self._claimed(run_id)]
