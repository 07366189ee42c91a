"""Handles changes of waiting runs without a signal: a resume in Prefect, the run's end, a deadline, a reminder."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from itertools import pairwise
from typing import Final

import structlog

from events.errors import NotFound, TransientError
from events.signal import Outcome, ResumeSignal
from services.prefect_api.run_view import RunView, Stay
from services.prefect_api.runs import FINAL_TYPES, StateChange, committed
from services.prefect_api.waiting import WaitingRuns
from services.signals.decision import end_of
from services.store.signals.signal_record import Answered, Mark
from services.store.signals.signals import SignalStore
from services.store.signals.waits import Alarm, Waits
from sluice.protocol import GAVE_UP, verdict_key

SOMEBODY: Final = "Prefect UI or API"

log = structlog.get_logger()


class ResumeObserver:
    """Records waits that end without a signal. ``remind`` publishes a reminder for a run and its wait."""

    def __init__(
        self,
        *,
        store: SignalStore,
        waits: Waits,
        runs: WaitingRuns,
        apply: Callable[[str], Awaitable[None]],
        remind: Callable[[RunView], Awaitable[None]],
    ) -> None:
        self._store = store
        self._waits = waits
        self._runs = runs
        self._apply = apply
        self._remind = remind

    async def left(self, change: StateChange, *, unseen: bool = False) -> None:
        """Handle a run that entered a state that is not paused; ``unseen``: it was not read since it was paused."""
        wait = await self._waits.wait_of(change.run_id)
        if wait is not None:
            await self._left(change.run_id, wait)
        elif unseen:
            await self._last_of(change.run_id, shown=change.state_id)
        if change.state_type in FINAL_TYPES:
            await self._ended(change.run_id)
        elif change.state_type == "SCHEDULED" and await self._waits.may_be_tagged(change.run_id):
            # The run may reach the wait late, or never, and has the tag of the wait until then.
            await self._runs.untag(change.run_id)

    async def left_unheard(self, run_id: str, wait: str) -> None:
        """Handle a run that is no longer in the wait in which it was known to be."""
        try:
            await self._left(run_id, wait)
        except NotFound:
            await self._waits.ended(run_id, wait)
        await self._ended(run_id)

    async def handed_over(self, run: RunView) -> None:
        """Handle a wait that now has no process: an answer that came at that moment resumes the run."""
        with contextlib.suppress(NotFound):
            if await self._runs.inputs(run.run_id, _evidence(run)):
                async with self._store.busy(f"run {run.run_id}"):
                    now = await self._runs.read(run.run_id)
                    if now.is_in(run.wait_id):
                        log.info("the wait was answered while its executor stopped", run_id=run.run_id)
                        await self._runs.go_on(now, "The wait was answered")

    async def waits_again(self, run: RunView) -> None:
        """Handle a run that waits again: the end of its former wait may not be recorded."""
        await self._last_of(run.run_id, but=run.wait_id)

    async def _last_of(self, run_id: str, *, but: str = "", shown: str | None = None) -> None:
        """Record the end of the last wait that the run has left, or of the last one that is not ``but``.

        ``shown`` is a state that Prefect has announced and may not have committed yet.
        """
        stays = await committed(partial(self._stays_with, run_id, shown)) or await self._runs.stays(run_id)
        for stay, after in reversed(list(pairwise(stays))):
            if stay.ours and not stay.is_wait(but):
                wait = stay.pause_key or stay.state_id
                if not await self._by_signal(run_id, wait):
                    await self._record(run_id, wait, stay, after)
                return

    async def still_waiting(self, runs: Sequence[RunView]) -> None:
        """Handle runs that wait: where a signal was applied to the wait, Prefect may have lost it in a crash."""
        waits = [(run.run_id, run.wait_id) for run in runs if run.ours]
        for run_id, wait in await self._store.applied_to(waits):
            with contextlib.suppress(NotFound):
                async with self._store.busy(f"run {run_id}"):
                    await self._lost(run_id, wait)

    async def _lost(self, run_id: str, wait: str) -> None:
        """Open a signal again whose answer Prefect has lost: the run waits as before, and has no answer."""
        signal_id = await self._store.applied_by(run_id, wait)
        record = await self._store.get(signal_id) if signal_id is not None else None
        mark = record.marks.get(run_id) if record is not None else None
        if record is None or mark is None or mark.outcome is not Outcome.APPLIED or mark.wait != wait:
            return
        run = await self._runs.read(run_id)
        if run.is_in(wait) and not await self._runs.inputs(run_id, _evidence(run)):
            log.warning(
                "prefect has lost the answer to a wait, it is applied again", run_id=run_id, signal_id=signal_id
            )
            await self._store.reopen(record, run_id, mark, "Prefect has lost it: the run waits as before")

    async def untag(self, run_id: str) -> None:
        """Remove the tags of a run that ended in a wait, where its process ended before it could."""
        if await self._waits.may_be_tagged(run_id):
            with contextlib.suppress(NotFound):
                await self._runs.untag(run_id)
            await self._waits.untagged(run_id)

    async def untag_ended(self, run_ids: Sequence[str]) -> None:
        """`untag` those of the runs that have ended or were deleted."""
        there = {run.run_id: run for run in await self._runs.read_many(run_ids)}
        for run_id in run_ids:
            if run_id not in there or there[run_id].final:
                await self.untag(run_id)

    async def alarms(self, now: datetime) -> None:
        """Handle the due deadlines and reminders of suspended runs."""
        for alarm in await self._waits.due(now):
            with contextlib.suppress(NotFound):
                async with self._store.busy(f"run {alarm.run_id}"):
                    run = await self._runs.read(alarm.run_id)
                    if run.is_in(alarm.wait) and run.suspended:
                        await self._ring(alarm, run)
            await self._waits.silence([alarm])

    async def _ring(self, alarm: Alarm, run: RunView) -> None:
        if alarm.kind == "reminder":
            await self._remind(run)
            return
        log.info("nobody answered in time, the run goes on", run_id=run.run_id, keys=run.keys)
        await self._runs.end_wait(run, {"action": "timeout"}, f"{GAVE_UP} in time")

    async def _left(self, run_id: str, wait: str) -> None:
        if not await self._by_signal(run_id, wait):
            await self._witness(run_id, wait)
        await self._waits.ended(run_id, wait)

    async def _by_signal(self, run_id: str, wait: str) -> bool:
        async with self._store.busy(f"run {run_id}"):  # the resumer that held the lease has recorded the result by then
            signal_id = await self._store.applied_by(run_id, wait)
            record = await self._store.get(signal_id) if signal_id is not None else None
        mark = record.marks.get(run_id) if record is not None else None
        return mark is not None and mark.outcome in {None, Outcome.APPLIED}

    async def _stays_with(self, run_id: str, shown: str | None) -> list[Stay] | None:
        stays = await self._runs.stays(run_id)
        return stays if shown is None or any(stay.is_wait(shown) for stay in stays) else None

    async def _witness(self, run_id: str, wait: str) -> None:
        """Record that the run left the wait without a signal: resumed by somebody, or without an answer."""
        found = await committed(partial(self._end_of_stay, run_id, wait))
        if found is None:
            raise TransientError(f"the run {run_id} is still in its wait")
        await self._record(run_id, wait, *found)

    async def _end_of_stay(self, run_id: str, wait: str) -> tuple[Stay, Stay] | None:
        pairs = pairwise(await self._runs.stays(run_id))
        return next(((stay, after) for stay, after in pairs if stay.is_wait(wait)), None)

    async def _record(self, run_id: str, wait: str, stay: Stay, after: Stay) -> None:
        """Record the end of a stay that no signal caused: an answer in Prefect's UI, or a wait left unanswered."""
        if after.state_type in FINAL_TYPES:
            return  # the run's final state shows it
        end = end_of(stay, after, await self._runs.inputs(run_id, stay.evidence) if stay.evidence else {})
        if end is None:
            if stay.ours and after.state_type != "CANCELLING":
                reason = f"the wait was left without an answer, for {after.state_name}: it is still to be answered"
                mark = Mark(wait=wait, outcome=Outcome.UNANSWERED, reason=reason)
                await self._note(run_id, stay, after, mark, by=None)
            return
        if end.how != "answered" or end.signal is not None or await self._by_signal(run_id, wait):
            return  # a signal may have been applied just now
        mark = Mark(wait=wait, outcome=Outcome.APPLIED, reason="resumed in Prefect")
        for key in stay.keys:
            answered = Answered(run_id=run_id, entered=stay.entered, left=after.entered, by=SOMEBODY)
            await self._store.answered(key, answered)
        await self._note(run_id, stay, after, mark, by=SOMEBODY)

    async def _note(self, run_id: str, stay: Stay, after: Stay, mark: Mark, *, by: str | None) -> None:
        known_as = {"id": f"prefect-{stay.state_id}", "run_id": run_id, "by": by, "sent": after.entered}
        signal = ResumeSignal.model_validate(known_as)
        new = await self._store.witness(
            signal, "prefect", run_id=run_id, mark=mark, reason=mark.reason, at=after.entered
        )
        if new:
            log.info("a run left its wait without a signal", run_id=run_id, reason=mark.reason)

    async def _ended(self, run_id: str) -> None:
        await self.untag(run_id)
        for record in await self._store.open_for([f"run {run_id}"]):
            await self._apply(record.signal.id)


def _evidence(run: RunView) -> list[str]:
    return [run.keyset.get("response", ""), verdict_key(run.pause_key or "")]
