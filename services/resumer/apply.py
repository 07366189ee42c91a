"""Applying signals: each to the runs it is for, once, in order, whoever else does the same at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeVar, assert_never

import structlog

from config.settings import ResumerSettings
from events.errors import NotFound, RejectedEvent, TransientError
from events.signal import Outcome
from services.prefect_api.waiting import Refused, Resumed, RunView, Stay, Undone
from services.resumer.decide import Step, Verdict, applied_to, missed, overall, rejection, resolved, step
from services.store.signal_record import Mark, SignalRecord
from services.store.signal_scripts import RECEIVED
from services.store.signals import Answered, Busy, SignalStore

T = TypeVar("T")

_PATIENCE_SECONDS: Final = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
"""How long to wait between tries while something passes by itself; then others come first and it is tried later."""

_LATER_SECONDS: Final = 2.0
_MOST_HINTS: Final = 20

log = structlog.get_logger()


class Runs(Protocol):
    """What is asked of Prefect (see `services.prefect_api.waiting.WaitingRuns`)."""

    async def read(self, run_id: str) -> RunView: ...
    async def waiting_for(self, keys: Sequence[str]) -> list[RunView]: ...
    async def stays(self, run_id: str) -> list[Stay]: ...
    async def inputs(self, run_id: str, keys: Sequence[str]) -> dict[str, Any]: ...
    async def say_key(self, run: RunView, key: str) -> None: ...
    async def resume(self, run: RunView, value: Mapping[str, Any]) -> Resumed | Undone | Refused: ...
    async def end_wait(self, run: RunView, verdict: Mapping[str, Any], message: str) -> Resumed | Undone: ...
    async def cancel(self, run: RunView, message: str) -> Resumed | Undone: ...


class Hints(Protocol):
    """Who was heard to wait (see `services.store.waits.Waits`): quicker than asking Prefect, and not complete."""

    async def heard_for(self, key: str, limit: int) -> list[str]: ...


class Applier:
    """Applies signals; many of them may run at once, in one process or in many.

    What a signal does to a run is noted in the store before and after Prefect is asked, under a lease on the run. Who
    goes on after a crash finds the note and asks the run's own past in Prefect how far it got.
    """

    def __init__(self, *, store: SignalStore, runs: Runs, hints: Hints, settings: ResumerSettings) -> None:
        self._store = store
        self._hints = hints
        self._runs = runs
        self._settings = settings

    async def apply(self, signal_id: str) -> None:
        """Bring the signal as far as it can get now; what cannot be done now is tried again later by whoever looks.

        Raises `TransientError` or `Backpressure` only when Redis is away.
        """
        for pause in (*_PATIENCE_SECONDS, None):
            try:
                await self._apply(signal_id)
            except (TransientError, RejectedEvent) as error:
                if pause is None:
                    log.warning("signal put off", signal_id=signal_id, error=str(error), in_seconds=_LATER_SECONDS)
                    await self._store.look_again(signal_id, _LATER_SECONDS)
                else:
                    await asyncio.sleep(pause)
            else:
                return

    async def serve(self, run_id: str, *, claimed: str | None = None) -> set[str]:
        """Apply to the run what is open for it, in order, as long as it waits; answers the ids of signals for a key.

        Their overall outcome is for the caller to find (`apply`). ``claimed`` is looked at even if the run does not
        wait for its key any more. Raises `TransientError` and `NotFound`.
        """
        touched: set[str] = set()
        async with self._store.busy(f"run {run_id}") as busy:
            while True:
                run = await self._call(self._runs.read(run_id))
                records = await self._store.open_for([f"run {run_id}", *(f"key {key}" for key in run.keys)])
                if claimed is not None and all(record.signal.id != claimed for record in records):
                    extra = await self._store.get(claimed)
                    records = [*([extra] if extra and extra.open else []), *records]
                for record in records:
                    if await self._take(run, record, busy):
                        if record.signal.key is not None:
                            touched.add(record.signal.id)
                        break
                else:
                    return touched
                if len(records) == 1:
                    return touched

    async def _apply(self, signal_id: str) -> None:
        record = await self._store.get(signal_id)
        if record is None or not record.open:
            return
        claims = [run_id for run_id, mark in record.marks.items() if mark.outcome is None]
        if not claims and record.expires <= datetime.now(UTC):
            await self._decide(record, _expired(record))
            return
        if record.signal.run_id is not None:
            settled = overall(record)
            if settled is not None:  # whoever settled it did not live to say so
                await self._decide(record, settled)
                return
            others = await self._to_run(record)
        else:
            async with self._store.busy(f"signal {signal_id}"):
                others = await self._to_key(signal_id, claims)
        for other in others - {signal_id}:
            await self._apply(other)

    async def _to_run(self, record: SignalRecord) -> set[str]:
        run_id = str(record.signal.run_id)
        try:
            return await self.serve(run_id)
        except NotFound:
            await self._decide(record, Verdict(Outcome.UNKNOWN_RUN, f"Prefect knows no flow run {run_id}"))
            return set()

    async def _to_key(self, signal_id: str, claims: Sequence[str]) -> set[str]:
        others: set[str] = set()
        for run_id in claims:
            others |= await self._serve_if_there(run_id, signal_id)
        record = await self._store.get(signal_id)
        if record is None or record.signal.key is None:
            return others
        key = record.signal.key
        hinted = await self._hints.heard_for(key, _MOST_HINTS)
        # One of several goes to the run that waits longest, which only Prefect can tell.
        for run_id in hinted if record.signal.deliver == "all" or len(hinted) == 1 else ():
            if run_id not in record.marks:
                others |= await self._serve_if_there(run_id, signal_id)
        record = await self._store.get(signal_id) or record
        if record.signal.deliver == "one" and _was_applied(record):
            await self._finish(record)
            return others
        for run in await self._call(self._runs.waiting_for([key])):
            if record.signal.deliver == "one" and _was_applied(record):
                break
            if run.run_id not in record.marks:
                others |= await self._serve_if_there(run.run_id, signal_id)
                record = await self._store.get(signal_id) or record
        await self._finish(record)
        return others

    async def _serve_if_there(self, run_id: str, claimed: str) -> set[str]:
        try:
            return await self.serve(run_id, claimed=claimed)
        except NotFound:
            return set()

    async def _finish(self, record: SignalRecord) -> None:
        if not record.open:
            return
        verdict = overall(record)
        if verdict is None and record.status == RECEIVED:
            for wait in await self._store.answers_for(record.signal.key or ""):
                if wait.entered <= record.received <= wait.left:
                    verdict = Verdict(
                        Outcome.DUPLICATE, f"the wait of run {wait.run_id} was answered by {wait.by} before"
                    )
                    break
        if verdict is None:
            await self._keep(record, "nobody waits for the key yet")
        else:
            await self._decide(record, verdict)

    async def _take(self, run: RunView, record: SignalRecord, busy: Busy) -> bool:
        """Do what comes next for the signal; whether the run may have changed by it."""
        match step(run, record):
            case Step.SKIP:
                return False
            case Step.KEEP:
                return await self._early(run, record)
            case Step.LOOK_BACK:
                verdict = missed(run, record, await self._call(self._runs.stays(run.run_id)))
                if verdict is not None:
                    await self._settle(run, record, Mark(state_id=run.state_id), verdict)
                    return False
                return await (self._attempt(run, record, busy) if run.waiting else self._early(run, record))
            case Step.RESOLVE:
                await self._resolve(run, record)
                return True
            case Step.APPLY:
                return await self._attempt(run, record, busy)
            case other:
                assert_never(other)

    async def _early(self, run: RunView, record: SignalRecord) -> bool:
        if record.signal.run_id is not None:
            await self._keep(record, f"the run does not wait yet ({run.state_name})")
        return False

    async def _attempt(self, run: RunView, record: SignalRecord, busy: Busy) -> bool:
        if busy.remaining < self._settings.call_seconds:
            raise TransientError("the lease on the run ran short")
        mark = Mark(state_id=run.state_id)
        if record.expires <= datetime.now(UTC):
            await self._settle(run, record, mark, _expired(record))
            return False
        if not await self._store.claim(record, run.run_id, mark, busy):
            return False
        match await self._call(self._ask(run, record)):
            case Resumed(at=at):
                await self._applied(run, record, mark, left=at)
            case Refused(reason=reason):
                await self._settle(run, record, mark, Verdict(Outcome.REJECTED, reason))
                return False
            case Undone.NOT_WAITING:
                await self._resolve(await self._call(self._runs.read(run.run_id)), record, mark)
            case Undone.NO_SCHEMA_YET:
                raise TransientError("the run has not yet said what its input looks like")
        return True

    async def _ask(self, run: RunView, record: SignalRecord) -> Resumed | Undone | Refused:
        signal = record.signal
        if signal.action == "reject":
            if not run.ours:
                return await self._runs.cancel(run, rejection(signal))
            verdict = {"action": "reject", "by": signal.by, "reason": signal.reason, "signal": signal.id}
            return await self._runs.end_wait(run, verdict, rejection(signal))
        if signal.key is not None and len(run.keys) > 1:
            await self._runs.say_key(run, signal.key)
        return await self._runs.resume(run, signal.input)

    async def _resolve(self, run: RunView, record: SignalRecord, mark: Mark | None = None) -> None:
        mark = mark or record.marks[run.run_id]
        stays = await self._call(self._runs.stays(run.run_id))
        stay = next((known for known in stays if known.state_id == mark.state_id), None)
        key = stay.keyset.get("response") if stay else None
        inputs = await self._call(self._runs.inputs(run.run_id, [key])) if key else {}
        verdict = resolved(run, record, mark, stays, inputs)
        if verdict.outcome is Outcome.APPLIED and stay is not None:
            await self._applied(run, record, mark, stay=stay, left=stay.left or run.entered)
        else:
            await self._settle(run, record, mark, verdict)

    async def _applied(
        self, run: RunView, record: SignalRecord, mark: Mark, *, left: datetime, stay: Stay | None = None
    ) -> None:
        wait_of = stay or run
        keys = (record.signal.key,) if wait_of.need_all and record.signal.key else wait_of.keys
        wait = Answered(run_id=run.run_id, entered=wait_of.entered, left=left, by=record.signal.by or record.signal.id)
        for key in keys:
            await self._store.answered(key, wait)
        await self._settle(run, record, mark, Verdict(Outcome.APPLIED, applied_to(run)))

    async def _settle(self, run: RunView, record: SignalRecord, mark: Mark, verdict: Verdict) -> None:
        settled = mark.model_copy(update={"outcome": verdict.outcome, "reason": verdict.reason})
        await self._store.settle(record, run.run_id, settled)
        if record.signal.run_id is not None:
            await self._decide(record, verdict)

    async def _keep(self, record: SignalRecord, reason: str) -> None:
        if not await self._store.buffer(record, reason):
            full = f"it came early, and the buffer is full (resumer.max_buffered={self._settings.max_buffered})"
            await self._decide(record, Verdict(Outcome.REJECTED, full))

    async def _decide(self, record: SignalRecord, verdict: Verdict) -> None:
        if await self._store.decide(record, verdict.outcome, verdict.reason):
            log.info(
                "signal decided",
                outcome=verdict.outcome.value,
                signal_id=record.signal.id,
                target=record.signal.target,
                reason=verdict.reason,
                event_id=record.signal.event_id,
            )

    async def _call(self, call: Awaitable[T]) -> T:
        try:
            return await asyncio.wait_for(call, self._settings.call_seconds)
        except TimeoutError as error:
            raise TransientError(f"Prefect did not answer within {self._settings.call_seconds:g} s") from error


def _expired(record: SignalRecord) -> Verdict:
    return Verdict(Outcome.EXPIRED, f"nobody waited for it within its time to live, {record.signal.ttl_seconds:g} s")


def _was_applied(record: SignalRecord) -> bool:
    return any(mark.outcome is Outcome.APPLIED for mark in record.marks.values())
