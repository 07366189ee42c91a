"""The router: reads the journal, decides on every entry, and hands the decision on as it acknowledges the entry."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import structlog

from events.dead_letter import DeadLetter
from events.errors import Backpressure, TransientError
from events.signal import ResumeSignal
from services.common import metrics
from services.common.backoff import Backoff, heed_cancellation
from services.common.reasons import told
from services.common.telemetry import tracing
from services.routing.decisions import Decision, EventDecider, Judge, PoisonCheck
from services.routing.rule_windows import RuleWindows
from services.store.dead_letters import DeadLetters, letter_id_of
from services.store.event_transitions import EventTransitions
from services.store.events.event_history import now_ms
from services.store.events.journal import Broken, Depth, Journal, JournalEntry
from services.store.events.verdict_lines import VerdictLines
from services.store.keys import position_seconds
from services.store.rules.parked_events import ParkedEvents

BLOCK_SECONDS: Final = 2.0
CLAIM_SECONDS: Final = 2.0
"""How often pending entries of killed routers are searched for, in addition to their idle time."""

_FINISH_SECONDS: Final = 2.5

log = structlog.get_logger()


class Router:
    """One of any number of readers of the journal.

    An entry is acknowledged in the same atomic step that records its verdicts and queues its runs, after
    its signals are recorded and its dead letters kept. A crash before that step repeats the entry, and every effect
    outside the step is safe to repeat.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        judge: Judge,
        lines: VerdictLines,
        handover: EventTransitions,
        parked: ParkedEvents,
        dead_letters: DeadLetters,
        submit_signal: Callable[[ResumeSignal], Awaitable[object]],
        windows: RuleWindows | None = None,
        poison_check: PoisonCheck | None = None,
    ) -> None:
        self._journal = journal
        self._lines = lines
        self._handover = handover
        self._parked = parked
        self._dead_letters = dead_letters
        self._deciding = EventDecider(
            judge=judge,
            dead_letters=dead_letters,
            submit_signal=submit_signal,
            windows=windows,
            poison_check=poison_check,
        )
        self._reading = Backoff("route events", first_seconds=0.1, longest_seconds=5)
        self._tending = Backoff("claim what dead readers left", first_seconds=0.5, longest_seconds=5)
        self._routed = 0
        self._claimed = 0
        self._depth: Depth | None = None
        self._parked_counts: Mapping[str, int] = {}

    async def run(self) -> None:
        """Route until cancelled; entries under way are then finished, or left to be claimed by another router."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read_forever())
            tasks.create_task(self._tend_forever())

    def status(self) -> Mapping[str, Any]:
        """Return the status for the role's report; ``parked`` has the number of parked events."""
        status: dict[str, Any] = {"ready": True, "routed": self._routed, "claimed": self._claimed}
        if self._depth is not None:
            status |= {"unread": self._depth.unread, "pending": self._depth.pending}
        status["parked"] = dict(self._parked_counts)
        trouble = self._reading.trouble or self._tending.trouble
        if trouble:
            return status | {"ready": False, "degraded": trouble}
        reasons = self._deciding.reasons
        sentences = [
            f"rule {rule} has parked {count} events" + (f": {reasons[rule]}" if rule in reasons else "")
            for rule, count in self._parked_counts.items()
        ]
        return status | told({"rule-parked": "; ".join(sentences)})

    async def _read_forever(self) -> None:
        """Read new entries and see each batch through before the next."""
        while True:
            try:
                entries = await self._journal.read(block_seconds=BLOCK_SECONDS)
            except (TransientError, Backpressure) as error:
                await self._reading.after(error)
                continue
            if entries:
                await self._see_through(entries)
            self._reading.worked()
            heed_cancellation()

    async def _tend_forever(self) -> None:
        """Take over pending entries of routers that have ended, and release parked events, at an interval."""
        while True:
            try:
                while entries := await self._journal.claim():
                    self._claimed += len(entries)
                    log.info("claimed pending entries of another router", position=entries[0].position)
                    await self._see_through(entries)
                await self._unpark()
                self._depth = await self._journal.depth()
                self._tending.worked()
            except (TransientError, Backpressure) as error:
                await self._tending.after(error)
            await asyncio.sleep(CLAIM_SECONDS)
            heed_cancellation()

    async def _unpark(self) -> None:
        """Evaluate parked events again: at the start, after the rules have changed, and when their rule works again."""
        released = self._deciding.released
        if released is None or released:
            self._deciding.released = set()  # rules released meanwhile are for the next call
            try:
                count = await self._parked.unpark(None if released is None else sorted(released))
            except BaseException:
                later = self._deciding.released
                self._deciding.released = None if released is None or later is None else released | later
                raise
            if count:
                log.info("parked events are evaluated again", events=count)
        self._parked_counts = await self._parked.counts()

    async def _see_through(self, entries: Sequence[JournalEntry | Broken]) -> None:
        """Handle a batch to its end; on cancellation it may still finish, within a short time."""
        handling = asyncio.create_task(self._until_handled(entries))
        try:
            await asyncio.shield(handling)
        except asyncio.CancelledError:
            with contextlib.suppress(TimeoutError, asyncio.CancelledError):
                await asyncio.wait_for(handling, _FINISH_SECONDS)
            raise

    async def _until_handled(self, entries: Sequence[JournalEntry | Broken]) -> None:
        """Handle a batch, as often as it takes: entries are decided in order."""
        while True:
            try:
                await self._handle(entries)
            except (TransientError, Backpressure) as error:
                await self._reading.after(error)
            else:
                self._routed += len(entries)
                return

    async def _handle(self, entries: Sequence[JournalEntry | Broken]) -> None:
        spans: list[Any] = []
        try:
            await self._hand_over(entries, spans)
        except BaseException as error:
            tracing.end(spans, error)
            raise
        tracing.end(spans)

    async def _decided(self, entry: JournalEntry, spans: list[Any]) -> Decision:
        """Return the decision on one entry; with traces on, its span is the parent of the decision's effects."""
        if not tracing.is_on():
            return await self._deciding.decide(entry)
        event = entry.event
        named = {"event_id": event.id, "source": event.source, "type": event.type, "position": entry.position}
        span = tracing.begin("sluice route", tracing.trace_of(event), **named)
        spans.append(span)
        decision = await self._deciding.decide(entry)
        span.set_attribute("sluice.rules", [verdict.rule for verdict in decision.verdicts if verdict.matched])
        decision.dispatches[:] = [replace(one, trace=tracing.text_of(span)) for one in decision.dispatches]
        return decision

    async def _hand_over(self, entries: Sequence[JournalEntry | Broken], spans: list[Any]) -> None:
        """Decide on entries and hand the decisions over to Redis, in order; unreadable entries become dead letters."""
        decisions = []
        set_aside = []
        for entry in entries:
            if isinstance(entry, Broken):
                await self._dead_letters.add(_broken_letter(entry))
                set_aside.append(entry.position)
                log.warning("a journal entry is not an event", position=entry.position, reason=entry.reason)
            else:
                decisions.append(await self._decided(entry, spans))
        lines = await self._lines.lines([one.judged for one in decisions], now_ms=now_ms())
        await self._handover.route([one.routed(line) for one, line in zip(decisions, lines, strict=True)])
        await self._journal.acknowledge(set_aside)
        _measure(decisions)
        for one in decisions:
            _tell(one)


def _tell(decision: Decision) -> None:
    """Log one line for each decision, with the ids of its effects, by which their log lines can be found."""
    event = decision.entry.event
    led_to = {
        "rules": [verdict.rule for verdict in decision.verdicts if verdict.matched],
        "runs_of": [one.action.deployment for one in decision.dispatches],
        "signal_ids": decision.signals,
        "letter_ids": decision.letters,
        "parked_by": decision.parked,
    }
    named: dict[str, Any] = {name: ids for name, ids in led_to.items() if ids}
    if decision.entry.replay:
        named["replay"] = True
    if tracing.is_on() and (trace := tracing.trace_of(event)):
        named["traceparent"] = trace
    log.info("event decided", event_id=event.id, source=event.source, type=event.type, **named)


def _measure(decisions: Sequence[Decision]) -> None:
    now = now_ms() / 1000
    metrics.routed.inc(len(decisions))
    for one in decisions:
        journalled = position_seconds(one.entry.position)
        for verdict in one.verdicts:
            if verdict.matched:
                metrics.matched.labels(verdict.rule).inc()
                if not one.entry.replay:
                    took = journalled - one.entry.event.time.timestamp()
                    metrics.journal_seconds.labels(verdict.rule).observe(max(0.0, took))
                    metrics.decision_seconds.labels(verdict.rule).observe(max(0.0, now - journalled))


def _broken_letter(entry: Broken) -> DeadLetter:
    return DeadLetter(
        id=letter_id_of("journal", entry.position),
        kind="message",
        code="broken-entry",
        reason=entry.reason,
        source="journal",
        raw=entry.raw,
    )
