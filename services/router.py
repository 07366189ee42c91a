"""The router: reads the journal, asks the rules, and hands every action on before it acknowledges."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol, assert_never

import structlog

from events.action import Action, ResumeRun, RunDeployment
from events.dead_letter import DeadLetter
from events.errors import Backpressure, RejectedEvent, TransientError
from events.event import Event
from events.signal import ResumeSignal, signal_from_mapping
from services.backoff import Backoff, heed_cancellation
from services.store.dead_letters import event_letter, letter_id_of
from services.store.event_history import compact_json, note_line, now_ms, packed
from services.store.journal import Broken, Depth, Entry
from services.store.lanes import Dispatch, dispatch_of
from services.store.progress import OPEN_VALUE, Routed, dead_value, window_token
from services.store.verdicts import Judged

BLOCK_SECONDS: Final = 2.0
CLAIM_SECONDS: Final = 2.0
"""How often entries of dead readers are looked for, on top of the time that they may be idle."""

MOST_DELIVERIES: Final = 4
"""An entry that this many readers ended with in hand is set aside: it may be what ended them."""

_FINISH_SECONDS: Final = 2.5
_SIGNAL_ID_LIMIT: Final = 256

log = structlog.get_logger()


class Verdict(Protocol):
    """What one rule said; see `events.rule`."""

    @property
    def rule(self) -> str: ...
    @property
    def matched(self) -> bool: ...
    @property
    def failed(self) -> str | None: ...
    @property
    def detail(self) -> str: ...
    @property
    def actions(self) -> tuple[Action, ...]: ...
    @property
    def error(self) -> RejectedEvent | None: ...
    @property
    def keys(self) -> Any: ...


Judge = Callable[[Event], tuple[Sequence[Verdict], str]]
"""The verdicts of the present rules, and those rules' version."""


class WindowAnswer(Protocol):
    """What a rule's windows say to an event that the rule matched."""

    @property
    def passes(self) -> bool:
        """The verdict's actions happen now."""

    @property
    def gathers(self) -> bool:
        """The window holds the event and will `release` it (see `services.store.progress`)."""

    @property
    def note(self) -> str:
        """For the event's history; why it was dropped, if it neither passes nor is held."""


class Windows(Protocol):
    """Batch, debounce, throttle and the like. Safe to repeat for one event and rule; durable on return."""

    async def offer(self, event: Event, position: str, verdict: Verdict, *, salt: str | None = None) -> WindowAnswer:
        """Let the windows of the verdict's rule decide; ``salt`` is that of a rerun."""


class JournalReader(Protocol):
    """The journal as its reader needs it."""

    async def read(
        self, *, count: int | None = None, block_seconds: float | None = None
    ) -> Sequence[Entry | Broken]: ...
    async def claim(self, *, count: int = 1) -> Sequence[Entry | Broken]: ...
    async def acknowledge(self, positions: Sequence[str]) -> int: ...
    async def depth(self) -> Depth: ...
    async def forget_idle_consumers(self) -> None: ...


class Lines(Protocol):
    """Makes history lines of verdicts."""

    async def lines(self, judged: Sequence[Judged], *, now_ms: int) -> Sequence[bytes]: ...


class Handover(Protocol):
    """Takes what the rules made of journal entries, and acknowledges them in the same step."""

    async def route(self, batch: Sequence[Routed]) -> None: ...


class DeadLetters(Protocol):
    """Keeps what could not be done."""

    async def add(self, letter: DeadLetter) -> None: ...


@dataclass(slots=True)
class _Decision:
    """What becomes of one entry."""

    entry: Entry
    verdicts: Sequence[Verdict]
    version: str
    dispatches: list[Dispatch] = field(default_factory=list)
    effects: list[tuple[str, str]] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)

    def judged(self) -> Judged:
        """The verdicts as the history takes them."""
        return Judged(self.entry.position, self.entry.event.type, self.verdicts, self.version, self.notes)


class Router:
    """One of any number of readers of the journal.

    An entry is acknowledged in the same atomic step that records its verdicts and puts its runs into their lanes, after
    its signals are recorded and its dead letters kept. A crash before that step repeats the entry, and every effect
    outside the step is safe to repeat.
    """

    def __init__(
        self,
        *,
        journal: JournalReader,
        judge: Judge,
        lines: Lines,
        handover: Handover,
        dead_letters: DeadLetters,
        submit_signal: Callable[[ResumeSignal], Awaitable[None]],
        windows: Windows | None = None,
    ) -> None:
        self._journal = journal
        self._judge = judge
        self._lines = lines
        self._handover = handover
        self._dead_letters = dead_letters
        self._submit_signal = submit_signal
        self._windows = windows
        self._reading = Backoff("route events", first_seconds=0.1, longest_seconds=5)
        self._claiming = Backoff("claim what dead readers left", first_seconds=0.5, longest_seconds=5)
        self._routed = 0
        self._claimed = 0
        self._depth: Depth | None = None

    async def run(self) -> None:
        """Route until cancelled; what is in hand then is finished, or left to be claimed by the next reader."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._read_forever())
            tasks.create_task(self._claim_forever())

    def status(self) -> Mapping[str, Any]:
        """For the role's report."""
        status: dict[str, Any] = {"ready": True, "routed": self._routed, "claimed": self._claimed}
        if self._depth is not None:
            status |= {"unread": self._depth.unread, "pending": self._depth.pending}
        trouble = self._reading.trouble or self._claiming.trouble
        if trouble:
            status |= {"ready": False, "degraded": trouble}
        return status

    async def _read_forever(self) -> None:
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

    async def _claim_forever(self) -> None:
        while True:
            try:
                while entries := await self._journal.claim():
                    self._claimed += len(entries)
                    log.info("claimed what another reader left", position=entries[0].position)
                    await self._see_through(entries)
                self._depth = await self._journal.depth()
                await self._journal.forget_idle_consumers()
                self._claiming.worked()
            except (TransientError, Backpressure) as error:
                await self._claiming.after(error)
            await asyncio.sleep(CLAIM_SECONDS)
            heed_cancellation()

    async def _see_through(self, entries: Sequence[Entry | Broken]) -> None:
        """Handle a batch until it is done; being told to end lets it finish, if that does not take long."""
        handling = asyncio.create_task(self._until_handled(entries))
        try:
            await asyncio.shield(handling)
        except asyncio.CancelledError:
            with contextlib.suppress(TimeoutError, asyncio.CancelledError):
                await asyncio.wait_for(handling, _FINISH_SECONDS)
            raise

    async def _until_handled(self, entries: Sequence[Entry | Broken]) -> None:
        while True:
            try:
                await self._handle(entries)
            except (TransientError, Backpressure) as error:
                await self._reading.after(error)
            else:
                self._routed += len(entries)
                return

    async def _handle(self, entries: Sequence[Entry | Broken]) -> None:
        decisions = []
        set_aside = []
        for entry in entries:
            if isinstance(entry, Broken):
                await self._dead_letters.add(_broken_letter(entry))
                set_aside.append(entry.position)
                log.warning("a journal entry is not an event", position=entry.position, reason=entry.reason)
            else:
                decisions.append(await self._decide(entry))
        judged = [
            Judged(one.entry.position, one.entry.event.type, one.verdicts, one.version, one.notes) for one in decisions
        ]
        lines = await self._lines.lines(judged, now_ms=now_ms())
        await self._handover.route([_routed(one, line) for one, line in zip(decisions, lines, strict=True)])
        await self._journal.acknowledge(set_aside)

    async def _decide(self, entry: Entry) -> _Decision:
        if entry.deliveries >= MOST_DELIVERIES:
            decision = _Decision(entry, (), "")
            reason = f"{entry.deliveries} routers ended while they had this event in hand; it was set aside"
            await self._bury(decision, None, "ended-routers", reason)
            return decision
        try:
            verdicts, version = self._judge(entry.event)
        except Exception as error:
            # Rules are to give a verdict on anything; a fault in them must not stop the events behind this one.
            log.exception("the rules failed on an event", event_id=entry.event.id)
            decision = _Decision(entry, (), "")
            await self._bury(decision, None, "rules-failed", f"the rules could not judge it: {error!r}")
            return decision
        if entry.only:
            verdicts = [verdict for verdict in verdicts if verdict.rule in entry.only]
        decision = _Decision(entry, verdicts, version)
        for verdict in verdicts:
            if verdict.matched:
                await self._act(decision, verdict)
        return decision

    async def _act(self, decision: _Decision, verdict: Verdict) -> None:
        entry = decision.entry
        if verdict.error is not None:
            await self._bury(decision, verdict.rule, verdict.error.code, verdict.error.reason)
            return
        if verdict.keys is not None and self._windows is not None:
            answer = await self._windows.offer(entry.event, entry.position, verdict, salt=entry.salt)
            if answer.note:
                decision.notes[verdict.rule] = answer.note
            if answer.gathers:
                decision.effects.append((window_token(verdict.rule), OPEN_VALUE))
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

    async def _resume(self, decision: _Decision, action: ResumeRun) -> None:
        try:
            await self._submit_signal(signal_for(action))
        except RejectedEvent as error:
            await self._bury(decision, action.rule, error.code, error.reason)

    async def _bury(self, decision: _Decision, rule: str | None, code: str, reason: str) -> None:
        event = decision.entry.event
        letter = event_letter(
            event_id=event.id, raw=event.to_json(), source=event.source, rule=rule, code=code, reason=reason
        )
        await self._dead_letters.add(letter)
        decision.effects.append((f"{rule or ''}!", dead_value(letter.id, rule, code, reason)))
        decision.lines.append(packed(["d", now_ms(), letter.id, rule, code, reason[:1000]]))
        log.warning("an event became a dead letter", event_id=event.id, rule=rule, code=code, reason=reason)


def signal_for(action: ResumeRun) -> ResumeSignal:
    """The signal that the action sends; its id is the action's key. Raises `RejectedEvent`."""
    key = action.idempotency_key
    if len(key) > _SIGNAL_ID_LIMIT:
        key = hashlib.blake2b(key.encode(), digest_size=20).hexdigest()
    fields: dict[str, Any] = {
        "id": key,
        "input": action.input,
        "action": action.action,
        "by": action.by or f"rule {action.rule}",
        "deliver": action.deliver,
        "event_id": action.event_ids[0],
    }
    optional = {
        "key": action.key, "run_id": action.run_id, "reason": action.reason, "ttl_seconds": action.ttl_seconds
    }  # fmt: skip
    fields |= {name: value for name, value in optional.items() if value is not None}
    return signal_from_mapping(fields, sent=datetime.now(UTC))


def _routed(one: _Decision, line: bytes) -> Routed:
    matched = [verdict.rule for verdict in one.verdicts if verdict.matched]
    lines = [line, *one.lines]
    if one.entry.replay:
        whom = f" to {', '.join(one.entry.only)}" if one.entry.only else ""
        lines.insert(
            0, compact_json(note_line(None, f"replayed{whom} as {'a rerun' if one.entry.salt else 'a repair'}"))
        )
    return Routed(
        event_id=one.entry.event.id,
        position=one.entry.position,
        lines=lines,
        matched=matched,
        dispatches=one.dispatches,
        effects=one.effects,
        quiet=one.entry.replay,
    )


def _broken_letter(entry: Broken) -> DeadLetter:
    now = datetime.now(UTC)
    return DeadLetter(
        id=letter_id_of("journal", entry.position),
        kind="message",
        code="broken-entry",
        reason=entry.reason,
        source="journal",
        raw=entry.raw,
        first_failed=now,
        last_failed=now,
    )
