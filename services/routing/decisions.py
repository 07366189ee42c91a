"""Decides on one journal entry: turns the rules' verdicts into runs, signals, windows and dead letters."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, assert_never

import structlog

from events.action import ResumeRun, RunDeployment
from events.errors import RejectedEvent
from events.event import Event
from events.rule import Verdict
from events.signal import ResumeSignal, signal_for
from services.dispatch.rule_circuit import CircuitLimits, RuleCircuit
from services.routing.rule_windows import RuleWindows, WindowAnswer
from services.store.dead_letters import DeadLetters, event_letter
from services.store.event_transitions import DONE_VALUE, OPEN_VALUE, Routed, dead_line, dead_value, window_token
from services.store.events.event_history import compact_json, note_line
from services.store.events.journal import JournalEntry
from services.store.events.verdict_lines import Judged
from services.store.rules.parked_events import parked_token
from services.store.runs.dispatch_queues import Dispatch, dispatch_of

MANY_DELIVERIES: Final = 4
"""An entry delivered this often without an acknowledgement goes through a poison check first."""

MOST_DELIVERIES: Final = 20
"""An entry delivered this often without an acknowledgement is a poison message in any case."""

log = structlog.get_logger()


Judge = Callable[[Event], tuple[Sequence[Verdict], str]]
"""Returns the verdicts of the rules in force on an event, and the version of these rules."""


PoisonCheck = Callable[[Event], Awaitable[str | None]]
"""Evaluates the event in a process of its own; returns how that process ended, if not by itself."""


@dataclass(slots=True)
class Decision:
    """The decision on one entry, filled in step by step."""

    entry: JournalEntry
    verdicts: Sequence[Verdict] = ()
    version: str = ""
    dispatches: list[Dispatch] = field(default_factory=list)
    effects: list[tuple[str, str]] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    parked: list[str] = field(default_factory=list)
    signals: list[str] = field(default_factory=list)
    letters: list[str] = field(default_factory=list)
    """The ids of its signals and of its dead letters."""

    @property
    def judged(self) -> Judged:
        """The verdicts for the history."""
        return Judged(self.entry.position, self.entry.event.type, self.verdicts, self.version, self.notes)

    def routed(self, line: bytes) -> Routed:
        """Return what the atomic step records and queues; ``line`` has the verdicts."""
        entry = self.entry
        lines = [line, *self.lines]
        if entry.replay:
            whom = f" by {', '.join(entry.only)}" if entry.only else ""
            mode = "for a rerun" if entry.salt else "to fill gaps"
            lines.insert(0, compact_json(note_line(None, f"judged again{whom} {mode}")))
        return Routed(
            identity=entry.event.identity,
            position=entry.position,
            lines=lines,
            matched=[verdict.rule for verdict in self.verdicts if verdict.matched],
            dispatches=self.dispatches,
            effects=self.effects,
            parked=self.parked,
            salt=entry.salt,
            quiet=entry.replay,
        )


class EventDecider:
    """Decides on entries one by one. Every effect outside the entry's `Decision` is safe to repeat.

    A rule whose templates fail on most events that it matches parks those on which they fail, instead of making a dead
    letter of each, until the rule works again or the rules change. ``released`` names the rules whose parked events may
    go on (None: all of them).
    """

    def __init__(
        self,
        *,
        judge: Judge,
        dead_letters: DeadLetters,
        submit_signal: Callable[[ResumeSignal], Awaitable[object]],
        windows: RuleWindows | None,
        poison_check: PoisonCheck | None,
    ) -> None:
        self._judge = judge
        self._dead_letters = dead_letters
        self._submit_signal = submit_signal
        self._windows = windows
        self._poison_check = poison_check
        self._circuits: dict[str, RuleCircuit] = {}
        self._version: str | None = None
        self.released: set[str] | None = None

    @property
    def reasons(self) -> Mapping[str, str]:
        """For each rule that parks events, the reason."""
        return {rule: circuit.reason for rule, circuit in self._circuits.items() if circuit.is_open}

    async def decide(self, entry: JournalEntry) -> Decision:
        """Evaluate the rules and apply their verdicts. After `TransientError` or `Backpressure`, call it again."""
        if (poisonous := await self._guilt(entry)) is not None:
            decision = Decision(entry)
            reason = f"{entry.deliveries} routers ended while they had this event in hand, and {poisonous}"
            await self._bury(decision, None, "ended-routers", reason)
            return decision
        try:
            verdicts, version = self._judge(entry.event)
        except Exception as error:
            # Rules must give a verdict on any event; a fault in them must not stop the events behind this one.
            log.exception("the rules failed on an event", event_id=entry.event.id, source=entry.event.source)
            decision = Decision(entry)
            await self._bury(decision, None, "rules-failed", f"the rules could not judge it: {error!r}")
            return decision
        self._note_version(version)
        if entry.only:
            verdicts = [verdict for verdict in verdicts if verdict.rule in entry.only]
        decision = Decision(entry, verdicts, version)
        if entry.replay:
            decision.effects += [(parked_token(rule), DONE_VALUE) for rule in entry.only]
        for verdict in verdicts:
            if verdict.matched:
                await self._act(decision, verdict)
        return decision

    async def _guilt(self, entry: JournalEntry) -> str | None:
        """Return why the event counts as a poison message, None if its routers were killed by chance."""
        if entry.deliveries < MANY_DELIVERIES:
            return None
        if entry.deliveries >= MOST_DELIVERIES:
            return "that is no chance"
        return await self._poison_check(entry.event) if self._poison_check is not None else None

    def _note_version(self, version: str) -> None:
        if version != self._version:
            self._version = version
            self._circuits.clear()
            self.released = None

    async def _act(self, decision: Decision, verdict: Verdict) -> None:
        """Add to the decision what a matching rule does: dead letter, window, runs or signals."""
        entry = decision.entry
        if verdict.error is not None:
            await self._fail(decision, verdict.rule, verdict.error)
            return
        self._note_success(verdict.rule)
        if entry.replay:
            decision.effects.append((_letter_token(verdict.rule), DONE_VALUE))
        if verdict.keys is not None and self._windows is not None:
            answer = await self._windows.offer(entry.event, entry.position, verdict, salt=entry.salt)
            _note_answer(decision, verdict.rule, answer)
            if not answer.passes:
                return
        for action in verdict.actions:
            salted = action.model_copy(update={"salt": entry.salt}) if entry.salt else action
            match salted:
                case RunDeployment():
                    decision.dispatches.append(dispatch_of(salted, [(entry.event, entry.position)]))
                case ResumeRun():
                    await self._resume(decision, salted)
                case _:
                    assert_never(salted)

    def _note_success(self, rule: str) -> None:
        circuit = self._circuits.get(rule)
        if circuit is not None and circuit.succeeded():
            log.info("a rule works again", rule=rule)
            if self.released is not None:
                self.released.add(rule)

    async def _fail(self, decision: Decision, rule: str, error: RejectedEvent) -> None:
        """Handle an event for which the rule cannot render its actions: a dead letter, or a parked event."""
        circuit = self._circuits.setdefault(rule, RuleCircuit(CircuitLimits()))
        if circuit.is_open:
            circuit.reason = error.reason
            decision.parked.append(rule)
            decision.effects.append((parked_token(rule), OPEN_VALUE))
            decision.notes[rule] = f"parked until the rule works: {error.reason}"
            return
        if circuit.failed(error.code, error.reason, time.monotonic()):
            log.warning("a rule parks its events", rule=rule, code=error.code, reason=error.reason)
        await self._bury(decision, rule, error.code, error.reason)

    async def _resume(self, decision: Decision, action: ResumeRun) -> None:
        signal = signal_for(action)
        try:
            await self._submit_signal(signal)
            decision.signals.append(signal.id)
        except RejectedEvent as error:
            await self._bury(decision, action.rule, error.code, error.reason)

    async def _bury(self, decision: Decision, rule: str | None, code: str, reason: str) -> None:
        letter = event_letter(decision.entry.event, rule=rule, code=code, reason=reason)
        await self._dead_letters.bury(letter)
        decision.effects.append((_letter_token(rule), dead_value(letter)))
        decision.lines.append(dead_line(letter))
        decision.letters.append(letter.id)


def _note_answer(decision: Decision, rule: str, answer: WindowAnswer) -> None:
    if answer.note:
        decision.notes[rule] = answer.note
    if answer.gathers:
        decision.effects.append((window_token(rule), OPEN_VALUE))


def _letter_token(rule: str | None) -> str:
    return f"{rule or ''}!"
