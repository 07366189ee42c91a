"""Delivers the open signals for one run, each once and in order, also with several resumers at work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar, assert_never

import structlog

from config.settings import ResumerSettings
from events.errors import TransientError
from events.identity import id_of
from events.signal import Outcome
from services.prefect_api.run_view import RunView, Stay
from services.prefect_api.waiting import RefusedAnswer, Resumed, Undone, WaitingRuns
from services.signals.decision import (
    DecisionStep,
    End,
    SignalDecision,
    applied_to,
    end_of,
    expired,
    missed,
    outlives,
    rejection,
    resolved,
    sent_to,
    step,
)
from services.store.signals.signal_record import Answered, Mark, SignalRecord
from services.store.signals.signals import Busy, SignalStore
from services.store.signals.waits import Waits
from sluice.protocol import addressed

T = TypeVar("T")

log = structlog.get_logger()


class Outdated(Exception):
    """The run is no longer in the wait in which it was known to be."""


class Delivery:
    """Applies signals to runs; safe concurrently, in one process or in many.

    A mark in the store, before and after the call to Prefect, says what a signal does to a run, under a lease on the
    run. After a crash the next resumer finds the mark and reads the run's state history in Prefect.

    Most signals cost Prefect a single call: a run that is known to wait is resumed without being read first. The answer
    names the wait it is for, so Prefect refuses it if the run has left that wait meanwhile; then the run is read.
    """

    def __init__(self, *, store: SignalStore, runs: WaitingRuns, heard: Waits, settings: ResumerSettings) -> None:
        self._store = store
        self._runs = runs
        self._heard = heard
        self._settings = settings
        # One at a time: on SQLite, Prefect responds with 503 to one of two concurrent transitions.
        self._turn = asyncio.Lock()

    async def serve(self, run_id: str, *, claimed: str | None = None, heard: RunView | None = None) -> set[str]:
        """Apply the run's open signals in order, while the run waits; return the ids of signals for a key.

        The caller decides their overall outcome (`apply`). The signal ``claimed`` is handled even if the run no longer
        waits for its key. ``heard`` is the run's last known state. Raises `TransientError` and `NotFound`.
        """
        touched: set[str] = set()
        async with self._store.busy(f"run {run_id}") as busy:
            while True:
                run = heard if heard is not None else await self.call(self._runs.read(run_id))
                heard = None
                records = await self._meant_for(run, claimed)
                try:
                    taken = await self._first(run, records, busy)
                except Outdated:
                    continue
                if taken is None:
                    return touched
                if taken.signal.key is not None:
                    touched.add(taken.signal.id)
                if len(records) == 1:
                    return touched

    async def _meant_for(self, run: RunView, claimed: str | None) -> list[SignalRecord]:
        """Return the signals for a run in the order of their submission, the claimed one included."""
        records = await self._store.open_for([f"run {run.run_id}", *(f"key {key}" for key in run.keys)])
        if run.waiting:
            records += await self._store.late_for(run.keys, run.run_id, run.open_since)
            records.sort(key=lambda record: record.place)
        if claimed is not None and all(record.signal.id != claimed for record in records):
            extra = await self._store.get(claimed)
            records = [*([extra] if extra and extra.open else []), *records]
        return records

    async def _first(self, run: RunView, records: Sequence[SignalRecord], busy: Busy) -> SignalRecord | None:
        for record in records:
            if await self._take(run, record, busy):
                return record
        return None

    async def _take(self, run: RunView, record: SignalRecord, busy: Busy) -> bool:
        """Take the signal's next step; return whether it may have changed the run."""
        match step(run, record):
            case DecisionStep.SKIP:
                return False
            case DecisionStep.KEEP:
                return await self._early(run, record)
            case DecisionStep.LOOK_BACK:
                verdict = await self._missed(run, record)
                if verdict is not None:
                    await self._settle(run, record, Mark(wait=run.wait_id), verdict)
                    return False
                return await (self._attempt(run, record, busy) if run.waiting else self._early(run, record))
            case DecisionStep.RESOLVE:
                await self._resolve(run, record)
                return True
            case DecisionStep.APPLY:
                return await self._attempt(run, record, busy)
            case other:
                assert_never(other)

    async def _missed(self, run: RunView, record: SignalRecord) -> SignalDecision | None:
        found = sent_to(run, record, await self.call(self._runs.stays(run.run_id)))
        if found is None:
            return missed(run, record, None, None)
        stay, after = found
        return missed(run, record, stay, end_of(stay, after, await self._evidence(run, stay)))

    async def _evidence(self, run: RunView, stay: Stay) -> dict[str, Any]:
        return await self.call(self._runs.inputs(run.run_id, stay.evidence)) if stay.evidence else {}

    async def _early(self, run: RunView, record: SignalRecord) -> bool:
        if record.signal.run_id is not None:
            await self.keep(record, f"the run does not wait yet ({run.state_name})")
        return False

    async def _attempt(self, run: RunView, record: SignalRecord, busy: Busy) -> bool:
        async with self._turn:
            return await self._attempt_now(run, record, busy)

    async def _attempt_now(self, run: RunView, record: SignalRecord, busy: Busy) -> bool:
        """Claim the signal for the run and send the answer to Prefect; return whether the run's wait may have ended.

        Raises `TransientError` if the lease is too short for the call, or the run's form is not stored yet, and
        `Outdated` if the run must be read before it may be rejected.
        """
        if busy.remaining < self._settings.call_seconds:
            raise TransientError("the lease on the run ran short")
        mark = Mark(wait=run.wait_id)
        if record.expires <= datetime.now(UTC):
            await self._settle(run, record, mark, expired(record))
            return False
        # A rejection does not name its wait, so it could end another one.
        if run.heard and record.signal.action == "reject":
            raise Outdated
        if not await self._store.claim(record, run.run_id, mark, busy):
            return False
        answer = await self.call(self._ask(run, record))
        if isinstance(answer, Resumed):
            await self._applied(run, record, mark, left=answer.at)
            return True
        if run.heard:
            await self._not_as_heard(record, mark, run.run_id)
        match answer:
            case RefusedAnswer(reason=reason):
                await self._settle(run, record, mark, SignalDecision(Outcome.REJECTED, reason))
                return False
            case Undone.NOT_WAITING:
                await self._resolve_now(run.run_id, record, mark)
            case Undone.NO_SCHEMA_YET:
                raise TransientError("the run has not yet stored the form of its wait")
        return True

    async def _not_as_heard(self, record: SignalRecord, mark: Mark, run_id: str) -> None:
        """Check that the run is in its last known state; otherwise update the signal and raise `Outdated`."""
        run = await self.call(self._runs.read(run_id))
        if run.is_in(mark.wait):
            return
        await self._heard.ended(run_id, mark.wait)
        await self._resolve(run, record, mark)
        raise Outdated

    async def _ask(self, run: RunView, record: SignalRecord) -> Resumed | Undone | RefusedAnswer:
        """Have Prefect resume the run with the answer, or end its wait with the rejection."""
        signal = record.signal
        if signal.action == "reject":
            if not run.ours:
                return await self._runs.cancel(run, rejection(signal))
            verdict = {"action": "reject", "by": signal.by, "reason": signal.reason, "signal": signal.id}
            return await self._runs.end_wait(run, verdict, rejection(signal))
        if not run.ours:
            return await self._runs.resume(run, signal.input)
        answer = addressed(signal.input, pause=run.pause_key or "", signal=signal.id, key=signal.key)
        return await self._runs.resume(run, answer)

    async def _resolve_now(self, run_id: str, record: SignalRecord, mark: Mark) -> None:
        run = await self.call(self._runs.read(run_id))
        if run.is_in(mark.wait):
            raise TransientError("the run is still in its wait, though Prefect did not let it go on")
        await self._resolve(run, record, mark)

    async def _resolve(self, run: RunView, record: SignalRecord, mark: Mark | None = None) -> None:
        """Find out from the run's past what became of a claimed signal, whose claimer may have ended before it knew."""
        mark = mark or record.marks[run.run_id]
        stays = await self.call(self._runs.stays(run.run_id))
        place = next((place for place, known in enumerate(stays) if known.is_wait(mark.wait)), None)
        stay = stays[place] if place is not None else None
        inputs = await self._evidence(run, stay) if stay is not None else {}
        end: End | None = None
        if stay is not None and place is not None and place + 1 < len(stays):
            end = end_of(stay, stays[place + 1], inputs)
        verdict = resolved(run, record, mark, stays, inputs)
        if verdict is None:
            await self._store.disclaim(record, run.run_id, mark)
        elif verdict.outcome is Outcome.APPLIED and stay is not None:
            await self._applied(run, record, mark, stay=stay, left=stay.left or run.entered)
        elif stay is not None and outlives(record, stay, end):
            await self._store.disclaim(record, run.run_id, mark)
        else:
            await self._settle(run, record, mark, verdict)

    async def _applied(
        self, run: RunView, record: SignalRecord, mark: Mark, *, left: datetime, stay: Stay | None = None
    ) -> None:
        """Record that the signal ended the run's wait, for each key that the wait has."""
        wait_of = stay or run
        keys = (record.signal.key,) if wait_of.need_all and record.signal.key else wait_of.keys
        wait = Answered(run_id=run.run_id, entered=wait_of.entered, left=left, by=record.signal.by or record.signal.id)
        for key in keys:
            await self._store.answered(key, wait)
        await self._heard.ended(run.run_id, mark.wait)  # before the sender hears of it, and sends the next one
        await self._settle(run, record, mark, SignalDecision(Outcome.APPLIED, applied_to(run)))

    async def _settle(self, run: RunView, record: SignalRecord, mark: Mark, verdict: SignalDecision) -> None:
        settled = mark.model_copy(update={"outcome": verdict.outcome, "reason": verdict.reason})
        await self._store.settle(record, run.run_id, settled)
        if record.signal.run_id is not None:
            await self.decide(record, verdict)

    async def keep(self, record: SignalRecord, reason: str) -> None:
        if not await self._store.buffer(record, reason):
            full = f"it came early, and the buffer is full (resumer.max_buffered={self._settings.max_buffered})"
            await self.decide(record, SignalDecision(Outcome.REJECTED, full))

    async def decide(self, record: SignalRecord, verdict: SignalDecision) -> None:
        if await self._store.decide(record, verdict.outcome, verdict.reason):
            log.info(
                "signal decided",
                outcome=verdict.outcome.value,
                signal_id=record.signal.id,
                target=record.signal.target,
                run_ids=sorted(record.marks),
                reason=verdict.reason,
                event_id=id_of(record.signal.event_identity) if record.signal.event_identity else None,
            )

    async def call(self, call: Awaitable[T]) -> T:
        try:
            return await asyncio.wait_for(call, self._settings.call_seconds)
        except TimeoutError as error:
            raise TransientError(f"Prefect did not answer within {self._settings.call_seconds:g} s") from error
