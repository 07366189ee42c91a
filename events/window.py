"""Windows: what a rule asks of them for one event, and what comes of the events that one of them has gathered."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from events.action import Action, RunDeployment
from events.errors import RejectedEvent
from events.event import Event
from events.rule import Rule, WindowKeys


@dataclass(frozen=True, slots=True)
class Dedupe:
    """Of the events with one key, only the first within the time counts."""

    key: str
    within_seconds: float


@dataclass(frozen=True, slots=True)
class ThrottleWindow:
    """Of the events with one key, at most so many within the time pass."""

    key: str
    max_events: int
    per_seconds: float


@dataclass(frozen=True, slots=True)
class Gather:
    """The events with one key wait for each other."""

    mode: Literal["batch", "debounce", "correlate"]
    key: str
    max_events: int
    wait_seconds: float
    """``batch``, ``correlate``: from the first event. ``debounce``: from the last."""
    max_wait_seconds: float
    """``debounce``: from the first event."""
    kinds: tuple[str, ...] = ()
    """``correlate``: what the event may stand for."""
    all_kinds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ask:
    """What one rule asks of its windows for one event: pass these, in this order."""

    rule: str
    dedupe: Dedupe | None = None
    throttle: ThrottleWindow | None = None
    gather: Gather | None = None


def ask_of(rule: Rule, keys: WindowKeys, event: Event) -> Ask:
    """The question that ``rule`` has for its windows when it matched ``event`` under ``keys``."""
    spec = rule.spec
    dedupe = throttle = None
    if keys.dedupe is not None:
        dedupe = Dedupe(keys.dedupe, spec.dedupe_seconds)
    if keys.throttle is not None and spec.throttle is not None:
        throttle = ThrottleWindow(keys.throttle, spec.throttle.max_events, spec.throttle.per_seconds)
    return Ask(rule.name, dedupe, throttle, _gather(rule, keys.gather, event))


def _gather(rule: Rule, key: str | None, event: Event) -> Gather | None:
    spec = rule.spec
    if key is None:
        return None
    if spec.batch is not None:
        wait = spec.batch.max_wait_seconds
        return Gather("batch", key, spec.batch.max_events, wait, wait)
    if spec.debounce is not None:
        wait = spec.debounce.wait_seconds
        longest = spec.debounce.max_wait_seconds or float("inf")
        return Gather("debounce", key, spec.debounce.max_events, wait, max(longest, wait))
    if spec.correlate is not None:
        within = spec.correlate.within_seconds
        kinds = tuple(rule.kinds(event.type))
        return Gather("correlate", key, 1, within, within, kinds, tuple(spec.correlate.all))
    return None


@dataclass(frozen=True, slots=True)
class Gathered:
    """An event that waited, and for ``correlate`` what it stands for."""

    event: Event
    kind: str = ""
    salt: str | None = None
    """Set where the event was put in again on purpose, as a rerun."""


def conclude(rule: Rule | None, gathered: Sequence[Gathered], *, complete: bool, key: str) -> tuple[Action, ...]:
    """What is to be done for the events of a window that closed, the oldest first.

    ``complete`` is false for what a ``correlate`` was left with. Raises `RejectedEvent` where nothing can be done:
    ``incomplete``, ``rule-gone`` or ``template``.
    """
    if rule is None:
        raise RejectedEvent("rule-gone", "the rule was taken away while it held the event")
    events = [one.event for one in gathered]
    correlate = rule.spec.correlate
    if not complete:
        raise RejectedEvent("incomplete", _missing(rule, {one.kind for one in gathered}, key))
    if not rule.gathers:  # the rule was changed while it held them
        actions = tuple(action for event in events for action in rule.actions([event]))
    else:
        joined = {one.kind: one.event for one in gathered}
        if correlate is not None and joined.keys() != correlate.all.keys():
            raise RejectedEvent("incomplete", _missing(rule, joined.keys(), key))
        actions = rule.actions(events, joined if correlate is not None else None)
    salt = next((one.salt for one in gathered if one.salt), None)
    return tuple(action.model_copy(update={"salt": salt}) for action in actions) if salt else actions


def can_be_divided(rule: Rule | None, count: int) -> bool:
    """Whether ``count`` events that a window gathered may also be acted on in parts: not those that belong together."""
    return rule is not None and count > 1 and rule.spec.correlate is None


def halves_of(rule: Rule | None, action: RunDeployment, events: Sequence[Event]) -> tuple[RunDeployment, ...]:
    """``action`` anew as two, for the first and the second half of its ``events``; empty where that cannot be.

    The halves depend on nothing but the number of events, so a repetition after a crash finds the same ones.
    """
    if rule is None or not rule.gathers or not can_be_divided(rule, len(events)):
        return ()
    middle = len(events) // 2
    parts: list[RunDeployment] = []
    for part in (events[:middle], events[middle:]):
        try:
            actions = rule.actions(part)
        except RejectedEvent:
            return ()
        again = next((one for one in actions if one.ordinal == action.ordinal), None)
        if not isinstance(again, RunDeployment) or again.deployment != action.deployment:
            return ()  # the rule was changed meanwhile
        parts.append(again.model_copy(update={"salt": action.salt}))
    return tuple(parts)


def _missing(rule: Rule, there: Collection[str], key: str) -> str:
    correlate = rule.spec.correlate
    if correlate is None:
        return "the rule was changed while it held the event: it does not join events any more"
    missing = [f"{kind} ({' or '.join(globs)})" for kind, globs in correlate.all.items() if kind not in there]
    return f"no {' and no '.join(missing)} came within {correlate.within_seconds:g} s for the key {key!r}"
