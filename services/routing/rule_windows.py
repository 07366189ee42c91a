"""The windows of the rules: decides on matched events, and acts when a window closes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final, assert_never

import structlog

from events.action import ResumeRun, RunDeployment
from events.errors import Backpressure, RejectedEvent, TransientError
from events.event import Event
from events.identity import id_of
from events.rule import RuleSet, Verdict
from events.signal import ResumeSignal, signal_for
from events.window import Gathered, ask_of, can_be_divided, conclude
from services.common.backoff import Backoff, heed_cancellation
from services.store.dead_letters import DeadLetters, event_letter
from services.store.event_transitions import EventTransitions, dead_line, dead_value, window_token
from services.store.events.event_history import compact_json, note_line
from services.store.events.journal import Journal
from services.store.rules.windows import Closed, Counts, Reply, WindowStore
from services.store.runs.dispatch_queues import dispatch_of

LEASE_SECONDS: Final = 10.0
"""How long one router may handle a closed window before another one repeats it."""

LONGEST_SLEEP_SECONDS: Final = 2.0
"""Longest time between two readings: this process is not notified of windows that another router opens."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class WindowAnswer:
    """What the windows of a rule decide on an event that the rule matched.

    ``passes``: the verdict's actions happen now. ``gathers``: the window holds the event for later. ``note``
    goes into the event's history: why the event was dropped, if it neither passes nor is held.
    """

    passes: bool
    gathers: bool
    note: str = ""


class RuleWindows:
    """Batch, debounce, correlate, throttle and dedupe, for any number of routers at once.

    ``rules`` returns the rules in force; ``resume`` sends a signal, durable on return. The effects of a closed window
    are handed on at least once, under keys by which a repetition is recognised.
    """

    def __init__(
        self,
        *,
        rules: Callable[[], RuleSet],
        store: WindowStore,
        journal: Journal,
        transitions: EventTransitions,
        dead_letters: DeadLetters,
        submit_signal: Callable[[ResumeSignal], Awaitable[object]],
    ) -> None:
        self._rules = rules
        self._store = store
        self._journal = journal
        self._transitions = transitions
        self._dead_letters = dead_letters
        self._submit_signal = submit_signal
        self._wake = asyncio.Event()
        self._working = Backoff("close windows", first_seconds=0.1, longest_seconds=5)
        self._counts = Counts(0, 0, 0)
        self._dropped: Mapping[str, int] = {}

    async def offer(self, event: Event, position: str, verdict: Verdict, *, salt: str | None = None) -> WindowAnswer:
        """Let the windows of the verdict's rule decide; durable on return, and safe to repeat.

        An event of a rerun (with ``salt``) is gathered with others again, but neither throttled nor dropped as a
        duplicate.
        """
        rule = self._rules().get(verdict.rule)
        if rule is None or verdict.keys is None:
            return WindowAnswer(passes=True, gathers=False)
        ask = ask_of(rule, verdict.keys, event)
        if salt:
            ask = replace(ask, dedupe_key=None, throttle_key=None)
        reply = await self._store.offer(ask, identity=event.identity, position=position, salt=salt)
        if ask.mode:
            self._wake.set()
        return _answer(reply, ask.mode)

    async def run(self) -> None:
        """Close windows and handle closed ones until cancelled."""
        while True:
            try:
                await self.act()
                self._counts = await self._store.counts()
                self._dropped = await self._store.dropped()
                soonest = await self._store.next_seconds()
            except (TransientError, Backpressure) as error:
                await self._working.after(error)
                continue
            self._working.worked()
            with suppress(TimeoutError):
                async with asyncio.timeout(
                    min(LONGEST_SLEEP_SECONDS, LONGEST_SLEEP_SECONDS if soonest is None else soonest)
                ):
                    await self._wake.wait()
            self._wake.clear()
            heed_cancellation()

    async def act(self) -> int:
        """Close the windows that are due, and hand on the effects of closed ones; return their number."""
        handled = 0
        await self._store.close_due()
        while claimed := await self._store.claim(lease_seconds=LEASE_SECONDS, count=4):
            for closed in claimed:
                await self._finish(closed)
                handled += 1
        return handled

    def status(self) -> Mapping[str, Any]:
        """For the role's report."""
        status: dict[str, Any] = {
            "open": self._counts.open,
            "closing": self._counts.closed,
            "events": self._counts.events,
            "dropped": dict(self._dropped),
        }
        if self._working.trouble:
            status |= {"ready": False, "degraded": self._working.trouble}
        return status

    async def _finish(self, closed: Closed) -> None:
        """Turn a closed window into runs and signals.

        If that fails for a full or expired window of several events, it is divided, as often as needed, so that only
        the event at fault becomes a dead letter.
        """
        entries = await self._journal.fetch([member.position for member in closed.members])
        there = [member for member in closed.members if member.position in entries]
        if len(there) < len(closed.members):
            gone = [member.identity for member in closed.members if member.position not in entries]
            log.error("the journal lost events that a window held", rule=closed.rule, events=gone[:10], count=len(gone))
        gathered = [Gathered(entries[member.position].event, member.kind, member.salt) for member in there]
        pairs = [(member.identity, member.position) for member in there]
        if not gathered:
            await self._store.done(closed)
            return
        try:
            await self._hand_on(closed, gathered, pairs)
        except RejectedEvent as error:
            rule = self._rules().get(closed.rule)
            if closed.why in {"full", "time"} and can_be_divided(rule, len(closed.members)):
                count, why = len(closed.members), error.reason
                log.warning(
                    "a window is divided to find the event at fault", rule=closed.rule, events=count, reason=why
                )
                await self._store.divide(closed)
                return
            await self._bury_all(closed, gathered, pairs, error)
            await self._store.done(closed, again=True)

    async def _hand_on(self, closed: Closed, gathered: Sequence[Gathered], pairs: Sequence[tuple[str, str]]) -> None:
        """Submit the signals of a closed window, then queue its runs and remove it in one step.

        A crash in between repeats the signals, under the same ids.
        """
        events = {one.event.identity: one.event for one in gathered}
        positions = dict(pairs)
        rule = self._rules().get(closed.rule)
        dispatches = []
        actions = conclude(rule, gathered, complete=closed.why != "incomplete", key=closed.key)
        for action in actions:
            if isinstance(action, ResumeRun):
                signal_for(action)  # refuse before any signal is sent
        for action in actions:
            match action:
                case RunDeployment():
                    dispatches.append(
                        dispatch_of(action, [(events[name], positions[name]) for name in action.identities])
                    )
                case ResumeRun():
                    await self._submit_signal(signal_for(action))
                case _:
                    assert_never(action)
        line = compact_json(note_line(closed.rule, _said_of(closed, len(pairs))))
        await self._transitions.release(
            token=window_token(closed.rule),
            events=pairs,
            dispatches=dispatches,
            lines=[line] * len(pairs),
            window=closed.id,
        )
        log.info("a window closed", rule=closed.rule, key=closed.key, why=closed.why, events=len(pairs))

    async def _bury_all(
        self, closed: Closed, gathered: Sequence[Gathered], pairs: Sequence[tuple[str, str]], error: RejectedEvent
    ) -> None:
        """Make each event of a window a dead letter, because the window's action fails for all of them."""
        for one, pair in zip(gathered, pairs, strict=True):
            letter = event_letter(one.event, rule=closed.rule, code=error.code, reason=error.reason)
            await self._dead_letters.bury(letter)
            await self._transitions.release(
                token=window_token(closed.rule), events=[pair], value=dead_value(letter), lines=[dead_line(letter)]
            )


def _answer(reply: Reply, mode: str) -> WindowAnswer:
    """Return what a window decided, with the note for the event's history."""
    match reply.said:
        case "pass":
            return WindowAnswer(passes=True, gathers=False)
        case "held" | "closed":
            return WindowAnswer(passes=False, gathers=True, note=f"waits in its {mode} window")
        case "repeated":
            return WindowAnswer(passes=False, gathers=False, note=f"its {mode} window has had it before")
        case "duplicate":
            return WindowAnswer(
                passes=False, gathers=False, note=f"dropped: it repeats the event {id_of(reply.other)} (dedupe_key)"
            )
        case "throttled":
            return WindowAnswer(
                passes=False, gathers=False, note="dropped by throttle: too many events within its time"
            )
        case _:
            assert_never(reply.said)


def _said_of(closed: Closed, count: int) -> str:
    how = {"full": "was full", "time": "was over", "complete": "was complete", "incomplete": "was over"}[closed.why]
    under = f" under the key {closed.key!r}" if closed.key else ""
    return f"its window{under} {how} with {count} event{'s' if count != 1 else ''}"
