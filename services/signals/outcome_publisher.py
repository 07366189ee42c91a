"""Publishes outcomes: as Prefect events on the run, in the event's history, and as dead letters."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from events.dead_letter import DeadLetter
from events.errors import Backpressure, Refused, TransientError
from events.identity import id_of
from events.signal import Outcome
from services.common import metrics
from services.common.backoff import Backoff
from services.prefect_api.events import event_resource, feed_event, related, run_event
from services.prefect_api.run_view import RunView
from services.store.dead_letters import DeadLetters
from services.store.events.history import History
from services.store.signals.outbox import Outbox, OutboxEntry
from services.store.signals.signal_record import SignalRecord
from services.store.signals.signals import SignalStore
from sluice.protocol import reminder_id

EVENT: Final = "sluice.signal."
"""Prefix of the Prefect event's name; the outcome follows."""

_DEAD: Final = frozenset({Outcome.REJECTED, Outcome.EXPIRED, Outcome.UNKNOWN_RUN})
_NAMES: Final = uuid.UUID("5b7a1d5e-98a4-4f0e-9c1d-0d3c8f3f6a51")
_TOGETHER_SECONDS: Final = 1.0
"""Outcomes within this time are published in one call, so that Prefect has time to resume runs."""


class OutcomePublisher:
    """Publishes every outcome at least once, under ids by which the receivers recognise a repetition."""

    def __init__(
        self,
        *,
        store: SignalStore,
        outbox: Outbox,
        emit: Callable[[Sequence[Mapping[str, Any]]], Awaitable[None]],
        dead: DeadLetters,
        history: History,
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._emit = emit
        self._dead = dead
        self._history = history
        self._backoff = Backoff("publish outcomes of signals", first_seconds=1, longest_seconds=30)

    def status(self) -> Mapping[str, Any]:
        """Degraded while outcomes cannot be published."""
        trouble = self._backoff.trouble
        return {"degraded": f"outcomes of signals cannot be published: {trouble}"} if trouble else {}

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            try:
                await self._tell(await self._outbox.read())
            except (TransientError, Backpressure, Refused) as error:
                await self._backoff.after(error)
            else:
                self._backoff.worked()
                await asyncio.sleep(_TOGETHER_SECONDS)

    async def _tell(self, told: Sequence[OutboxEntry]) -> None:
        """Publish outcomes to Prefect's events, histories and dead letters; then remove them from the outbox.

        A crash before that repeats them under the same ids.
        """
        records = {record.signal.id: record for record in await self._store.get_many([one.signal_id for one in told])}
        bodies: list[dict[str, Any]] = []
        for one in told:
            record = records.get(one.signal_id)
            if record is None:
                continue
            bodies += _events(record, one)
            if one.status in _DEAD:
                await self._dead.add(_letter(record, one))
            if record.signal.event_identity is not None:
                await self._history.signal(record.signal.event_identity, record.signal.id, one.status)
        await self._emit(bodies)
        await self._outbox.done(told)
        for one in told:
            metrics.signals.labels(one.status).inc()
            if (record := records.get(one.signal_id)) is not None and one.status != Outcome.DUPLICATE:
                took = (one.at - record.received).total_seconds()
                metrics.signal_seconds.labels(one.status).observe(max(0.0, took))


def reminder_event(run: RunView) -> dict[str, Any]:
    """Return the reminder event of a suspended run; the process of a paused run sends the same one itself."""
    return run_event(
        f"{EVENT}reminder",
        run_id=run.run_id,
        event_id=reminder_id(run.run_id, run.pause_key or ""),
        payload={"wait": run.pause_key, "keys": list(run.keys), "since": run.since.isoformat()},
    )


def _events(record: SignalRecord, told: OutboxEntry) -> list[dict[str, Any]]:
    """Return an event of Prefect's feed for each run that the outcome is about, or one about the signal itself."""
    signal = record.signal
    runs = set(record.marks) | ({str(signal.run_id)} if signal.run_id else set())
    known = [related("signal", f"sluice.signal.{signal.id}", signal.id)]
    if signal.event_identity is not None:
        known.append(event_resource(signal.event_identity))
    if told.status == Outcome.UNKNOWN_RUN:
        runs = set()
    bodies = []
    for run_id in sorted(runs) or [""]:
        mark = record.marks.get(run_id)
        outcome = mark.outcome.value if mark and mark.outcome and told.status == record.status else told.status
        payload = {
            "signal": signal.id,
            "outcome": outcome,
            "reason": (mark.reason if mark else "") or record.reason,
            "action": signal.action,
            "key": signal.key,
            "by": signal.by,
            "origin": record.origin,
            "sent": signal.sent.isoformat(),
            "look": f"sluice signals show {signal.id}",
        }
        name = str(uuid.uuid5(_NAMES, f"{signal.id} {told.status} {run_id} {told.nth}"))
        about = f"prefect.flow-run.{run_id}" if run_id else f"sluice.signal.{signal.id}"
        bodies.append(
            feed_event(
                f"{EVENT}{outcome}",
                resource=about,
                name=None if run_id else signal.target,
                related=known,
                event_id=name,
                payload=payload,
                occurred=told.at,
            )
        )
    return bodies


def _letter(record: SignalRecord, told: OutboxEntry) -> DeadLetter:
    """Return the dead letter of a signal that was not applied; its id follows from the signal's."""
    return DeadLetter(
        id=str(uuid.uuid5(_NAMES, f"{record.signal.id} letter")),
        kind="signal",
        code=told.status,
        reason=record.reason,
        source=record.origin,
        raw=record.signal.model_dump_json().encode(),
        event_id=id_of(record.signal.event_identity) if record.signal.event_identity else None,
        first_failed=record.decided or told.at,
    )
