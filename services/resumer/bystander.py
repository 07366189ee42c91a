"""What happens to waiting runs without a signal: somebody else's resume, the end of a run, a deadline, a reminder."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from itertools import pairwise
from typing import Any, Final, Protocol

import structlog

from events.errors import NotFound, TransientError
from events.signal import Outcome, ResumeSignal
from services.prefect_api.events import StateChange
from services.prefect_api.waiting import Resumed, RunView, Stay, Undone
from services.resumer.decide import resumes
from services.store.signal_record import Mark
from services.store.signals import Answered, SignalStore
from services.store.waits import Alarm, Waits
from sluice.protocol import GAVE_UP

_VISIBLE_SECONDS: Final = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
_FINAL: Final = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})

SOMEBODY: Final = "Prefect UI or API"

log = structlog.get_logger()


class Runs(Protocol):
    """What is asked of Prefect (see `services.prefect_api.waiting.WaitingRuns`)."""

    async def read(self, run_id: str) -> RunView: ...
    async def stays(self, run_id: str) -> list[Stay]: ...
    async def end_wait(self, run: RunView, verdict: Mapping[str, Any], message: str) -> Resumed | Undone: ...


class Bystander:
    """Sees to waits that end without a signal. ``remind`` tells of a reminder, given run and wait."""

    def __init__(
        self,
        *,
        store: SignalStore,
        waits: Waits,
        runs: Runs,
        apply: Callable[[str], Awaitable[None]],
        remind: Callable[[RunView], Awaitable[None]],
    ) -> None:
        self._store = store
        self._waits = waits
        self._runs = runs
        self._apply = apply
        self._remind = remind

    async def left(self, change: StateChange) -> None:
        """A run entered another state than a paused one."""
        state_id = await self._waits.state_of(change.run_id)
        if state_id is not None:
            await self._left(change.run_id, state_id)
        if change.state_type in _FINAL:
            await self._ended(change.run_id)

    async def left_unheard(self, run_id: str, state_id: str) -> None:
        """A run was found not to be in the wait that it was last heard to be in."""
        try:
            await self._left(run_id, state_id)
        except NotFound:
            await self._waits.ended(run_id, state_id)
        await self._ended(run_id)

    async def alarms(self, now: datetime) -> None:
        """See to the deadlines and reminders of suspended runs that are due."""
        for alarm in await self._waits.due(now):
            with contextlib.suppress(NotFound):
                async with self._store.busy(f"run {alarm.run_id}"):
                    run = await self._runs.read(alarm.run_id)
                    if run.waiting and run.state_id == alarm.state_id:
                        await self._ring(alarm, run)
            await self._waits.silence([alarm])

    async def _ring(self, alarm: Alarm, run: RunView) -> None:
        if alarm.kind == "reminder":
            await self._remind(run)
            return
        log.info("nobody answered in time, the run goes on", run_id=run.run_id, keys=run.keys)
        await self._runs.end_wait(run, {"action": "timeout"}, f"{GAVE_UP} in time")

    async def _left(self, run_id: str, state_id: str) -> None:
        if not await self._by_signal(run_id, state_id):
            await self._witness(run_id, state_id)
        await self._waits.ended(run_id, state_id)

    async def _by_signal(self, run_id: str, state_id: str) -> bool:
        async with self._store.busy(f"run {run_id}"):  # whoever is at it has then said what came of it
            signal_id = await self._store.applied_by(state_id)
            record = await self._store.get(signal_id) if signal_id is not None else None
        mark = record.marks.get(run_id) if record is not None else None
        return mark is not None and mark.outcome in {None, Outcome.APPLIED}

    async def _witness(self, run_id: str, state_id: str) -> None:
        """Record it if somebody resumed the run from that wait without a signal."""
        for pause in (*_VISIBLE_SECONDS, None):
            for stay, after in pairwise(await self._runs.stays(run_id)):
                if stay.state_id == state_id:
                    if resumes(after) and not await self._by_signal(run_id, state_id):  # it may be one of just now
                        await self._record(run_id, stay, after.entered)
                    return
            if pause is not None:
                await asyncio.sleep(pause)  # told of before it is committed
        raise TransientError(f"the run {run_id} still stands in its wait")

    async def _record(self, run_id: str, stay: Stay, at: datetime) -> None:
        signal = ResumeSignal.model_validate(
            {"id": f"prefect-{stay.state_id}", "run_id": run_id, "by": SOMEBODY, "sent": at}
        )
        mark = Mark(state_id=stay.state_id, outcome=Outcome.APPLIED, reason="resumed in Prefect")
        for key in stay.keys:
            await self._store.answered(key, Answered(run_id=run_id, entered=stay.entered, left=at, by=SOMEBODY))
        if await self._store.witness(signal, "prefect", run_id=run_id, mark=mark, reason="resumed in Prefect", at=at):
            log.info("run resumed in Prefect, without a signal", run_id=run_id)

    async def _ended(self, run_id: str) -> None:
        for record in await self._store.open_for([f"run {run_id}"]):
            await self._apply(record.signal.id)
