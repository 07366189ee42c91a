"""Applies signals: each to the runs it is for, once and in order, also with several resumers at work."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from config.settings import ResumerSettings
from events.errors import NotFound, Refused, TransientError
from events.signal import Outcome
from services.prefect_api.run_view import RunView, remembered
from services.prefect_api.runs import COMMIT_SECONDS
from services.prefect_api.waiting import WaitingRuns
from services.signals import delivery
from services.signals.decision import SignalDecision, expired, overall
from services.signals.late import LateSignals
from services.store.signals.signal_record import RECEIVED, Mark, SignalRecord
from services.store.signals.signals import SignalStore
from services.store.signals.waits import Waits

_PATIENCE_SECONDS: Final = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Pauses between attempts while a transient state prevents applying; after them the signal is scheduled for later."""

_LATER_SECONDS: Final = 2.0

log = structlog.get_logger()


class Applier:
    """Finds the runs that a signal is for and delivers it to each; safe in several processes at once.

    A run that is known to wait is found without asking Prefect. Prefect is asked if no known run took the signal.
    """

    def __init__(self, *, store: SignalStore, runs: WaitingRuns, hints: Waits, settings: ResumerSettings) -> None:
        self._store = store
        self._hints = hints
        self._runs = runs
        self._late = LateSignals(store=store, runs=runs)
        self._delivery = delivery.Delivery(store=store, runs=runs, heard=hints, settings=settings)

    async def apply(self, signal_id: str) -> None:
        """Apply the signal as far as possible now; the rest is scheduled to be tried again by any resumer.

        Raises `TransientError` or `Backpressure` only when Redis is away.
        """
        for pause in (*_PATIENCE_SECONDS, None):
            try:
                await self._apply(signal_id)
            except (TransientError, Refused) as error:
                if pause is None:
                    log.warning(
                        "signal is tried again later", signal_id=signal_id, error=str(error), in_seconds=_LATER_SECONDS
                    )
                    await self._store.look_again(signal_id, _LATER_SECONDS)
                else:
                    await asyncio.sleep(pause)
            else:
                return

    async def serve(self, run_id: str) -> None:
        """Deliver the open signals for the run; raises `TransientError` and `NotFound`."""
        await self._delivery.serve(run_id)

    async def _apply(self, signal_id: str) -> None:
        """Apply a signal, and then those that became due by it, unless it has an outcome or has expired."""
        record = await self._store.get(signal_id)
        if record is None or not record.open:
            return
        claims = [run_id for run_id, mark in record.marks.items() if mark.outcome is None]
        if not claims and record.expires <= datetime.now(UTC):
            await self._delivery.decide(record, expired(record))
            return
        if record.signal.run_id is not None:
            settled = overall(record)
            if settled is not None:  # the process that decided it ended before it recorded the outcome
                await self._delivery.decide(record, settled)
                return
            others = await self._to_run(record)
        else:
            async with self._store.busy(f"signal {signal_id}"):
                others = await self._to_key(signal_id, claims)
        for other in others - {signal_id}:
            await self._apply(other)

    async def _to_run(self, record: SignalRecord) -> set[str]:
        """Apply a signal to its run; return other signals that are due for it.

        A run that Prefect does not know gets time to appear: the signal may be faster than its commit.
        """
        run_id = str(record.signal.run_id)
        # A second attempt reads the run first; and so does one on Prefect's own pauses, which take any answer.
        memo = None if record.marks else await self._hints.memo_of(run_id)
        heard = remembered(memo) if memo is not None else None
        try:
            return await self._delivery.serve(run_id, heard=heard if heard is not None and heard.ours else None)
        except NotFound:
            reason = f"Prefect knows no flow run {run_id}"
            if datetime.now(UTC) - record.received < timedelta(seconds=COMMIT_SECONDS):
                raise TransientError(f"{reason} yet") from None
            await self._delivery.decide(record, SignalDecision(Outcome.UNKNOWN_RUN, reason))
            return set()

    async def _to_key(self, signal_id: str, claims: Sequence[str]) -> set[str]:
        """Apply a signal to the runs that wait for its key; return other signals that are due for these runs.

        Runs of which a wait has just been published come first: Prefect may not show them in a listing yet.
        """
        others: set[str] = set()
        for run_id in claims:
            others |= await self._serve_if_there(run_id, signal_id)
        record = await self._store.get(signal_id)
        if record is None or record.signal.key is None:
            return others
        key = record.signal.key
        heard = [remembered(memo) for memo in await self._hints.memos_for(key)]
        record, touched = await self._to_each(sorted(heard, key=lambda run: run.since), record)
        others |= touched
        # After that, a run that was not known to wait gets the signal when its wait becomes known: see `late_for`.
        if not _was_applied(record):
            record, touched = await self._to_each(await self._delivery.call(self._runs.waiting_for([key])), record)
            others |= touched
        await self._finish(record)
        return others

    async def _to_each(self, runs: Sequence[RunView], record: SignalRecord) -> tuple[SignalRecord, set[str]]:
        """Apply a signal to each of the runs, or with ``deliver: one`` until it was applied."""
        others: set[str] = set()
        for run in runs:
            if record.signal.deliver == "one" and _was_applied(record):
                break
            if run.run_id not in record.marks:
                others |= await self._serve_if_there(run.run_id, record.signal.id, run)
                record = await self._store.get(record.signal.id) or record
        return record, others

    async def _serve_if_there(self, run_id: str, claimed: str, seen: RunView | None = None) -> set[str]:
        """Apply the signals for a run; for one that was deleted the claimed signal is rejected."""
        try:
            return await self._delivery.serve(
                run_id, claimed=claimed, heard=seen if seen is not None and seen.heard else None
            )
        except NotFound:
            record = await self._store.get(claimed)
            mark = record.marks.get(run_id) if record is not None else None
            if record is not None and mark is not None and mark.outcome is None:
                gone = mark.model_copy(update={"outcome": Outcome.REJECTED, "reason": "the run was deleted"})
                await self._store.settle(record, run_id, gone)
                await self._hints.ended(run_id, mark.wait)
            return set()

    async def _finish(self, record: SignalRecord) -> None:
        """Give a signal its outcome after all waiting runs were tried, or keep it for a later run.

        Without a run it is a duplicate if it was received while a wait was open that another answer ended, or late if
        the last wait for its key is over.
        """
        if not record.open:
            return
        if any(mark.outcome is None for mark in record.marks.values()):
            # Another resumer is applying signals to a run of the key, and will come to this one, too.
            await self._store.look_again(record.signal.id, _LATER_SECONDS)
            return
        verdict = overall(record)
        if verdict is None and record.status == RECEIVED:
            for wait in await self._store.answers_for(record.signal.key or ""):
                if wait.entered <= record.received <= wait.left:
                    verdict = SignalDecision(
                        Outcome.DUPLICATE, f"the wait of run {wait.run_id} was answered by {wait.by} before"
                    )
                    break
        if verdict is not None:
            await self._delivery.decide(record, verdict)
            return
        look = await self._delivery.call(self._late.look(record))
        if look.run_id is None:
            await self._delivery.keep(record, look.reason)
            return
        mark = Mark(wait="", outcome=Outcome.LATE, reason=look.reason)  # the run's page shows it
        await self._store.settle(record, look.run_id, mark)
        await self._delivery.decide(record, SignalDecision(Outcome.LATE, look.reason))


def _was_applied(record: SignalRecord) -> bool:
    return any(mark.outcome is Outcome.APPLIED for mark in record.marks.values())
