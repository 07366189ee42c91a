"""Recognises late signals: those for a key whose last wait is over, and that no run may wait for again.

An active run may wait for the key again, as a loop does: a signal is not late before the run that waited last, and the
run of which it is a subflow, have ended. A run that crashed, or failed in a wait that nobody answered, is likely to be
retried, and then waits as before.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Final, NamedTuple

from events.signal import Outcome
from services.prefect_api.run_view import RunView
from services.prefect_api.waiting import WaitingRuns
from services.signals.decision import end_of
from services.store.signals.signal_record import SignalRecord
from services.store.signals.signals import SignalStore

EARLY: Final = "nobody waits for the key yet"
_LONGEST_ANSWER: Final = 200
_MOST_PARENTS: Final = 5
"""Number of the latest waiting runs of which it is checked whether they are subflows of an active run."""


class Look(NamedTuple):
    """``run_id`` is the run whose wait is over, for a late signal; None for one that is kept. ``reason`` says why."""

    run_id: str | None
    reason: str


class LateSignals:
    """Distinguishes late signals from early ones. Raises `TransientError` when Redis or Prefect is away."""

    def __init__(self, *, store: SignalStore, runs: WaitingRuns) -> None:
        self._store = store
        self._runs = runs

    async def of(self, records: Sequence[SignalRecord]) -> list[SignalRecord]:
        """Return the buffered signals for which every run that has waited for their key has ended since."""
        open_records = [record for record in records if record.signal.key and not record.signal.buffer]
        waited = await self._store.waited_for({str(record.signal.key) for record in open_records})
        found = [record for record in open_records if _came_after(record, waited[str(record.signal.key)])]
        run_ids = sorted({run_id for record in found for run_id in waited[str(record.signal.key)]})
        active = {run.run_id for run in await self._runs.read_many(run_ids) if not run.final}
        return [record for record in found if not active.intersection(waited[str(record.signal.key)])]

    async def look(self, record: SignalRecord) -> Look:
        """Look at a signal for a key that no run waits for now."""
        key = str(record.signal.key)
        if record.signal.buffer:
            return Look(None, EARLY)
        waited = (await self._store.waited_for([key]))[key]
        if not _came_after(record, waited):
            return Look(None, EARLY)
        runs = {run.run_id: run for run in await self._runs.read_many(list(waited))}
        newest = sorted(waited, key=lambda run_id: waited[run_id], reverse=True)
        for run_id in newest:
            run = runs.get(run_id)
            above = run is not None and run_id in newest[:_MOST_PARENTS]
            if run is not None and (not run.final or (above and await self._runs.has_active_parent(run_id))):
                return Look(None, f"the run {run.name} has waited for the key, goes on, and may wait for it again")
        last_id = newest[0]
        last = runs.get(last_id)
        if last is not None and await self._may_go_on(last, key):
            return Look(
                None, f"the run {last.name} has ended as {last.state_name}, and may wait again if it is retried"
            )
        return Look(last_id, await self._said(last, last_id, key))

    async def _may_go_on(self, run: RunView, key: str) -> bool:
        """Whether the run, which has ended, is likely to wait again: it crashed, or failed in a wait that is open."""
        if run.state_type != "FAILED":
            return run.state_type == "CRASHED"
        for stay, after in reversed(list(pairwise(await self._runs.stays(run.run_id)))):
            if stay.ours and key in stay.keys:
                return end_of(stay, after, await self._runs.inputs(run.run_id, stay.evidence)) is None
        return True

    async def _said(self, run: RunView | None, run_id: str, key: str) -> str:
        name = f"{run.name} ({run_id})" if run is not None else run_id
        state = f"is {run.state_name}" if run is not None else "was deleted"
        answer = await self._answer(run_id, key)
        kept = "a signal is kept for a later run only if it says so (`buffer`)"
        return f"the wait for the key is over: the run {name} {state}, {answer}; {kept}"

    async def _answer(self, run_id: str, key: str) -> str:
        """Return, for a message, who ended the run's wait for this key, and how."""
        for one in reversed(await self._store.of_run(run_id)):
            mark = one.marks.get(run_id)
            signal = one.signal
            if mark is not None and mark.outcome is Outcome.APPLIED and (signal.key or key) == key:
                what = "rejected" if signal.action == "reject" else "answered"
                with_ = (
                    f" with {json.dumps(signal.input, ensure_ascii=False)[:_LONGEST_ANSWER]}" if signal.input else ""
                )
                at = one.decided or one.received
                return f"{what} by {signal.by or 'an unnamed sender'} at {_utc(at)}{with_} (signal {signal.id})"
        return "and no answer to it is known"


def _came_after(record: SignalRecord, waited: dict[str, datetime]) -> bool:
    """Whether the signal came after the last wait for its key had begun; a signal from before that is early."""
    return bool(waited) and record.received >= max(waited.values())


def _utc(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
