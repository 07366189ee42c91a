"""Windows: what a rule asks of them for one event, and what comes of the events that one of them has gathered."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from events.action import Action, RunDeployment
from events.errors import RejectedEvent
from events.event import Event
from events.rule import Rule, WindowKeys


@dataclass(frozen=True, slots=True)
class Ask:
    """What one rule asks of its windows for one event; a key that is None belongs to a window that the rule has not."""

    rule: str
    dedupe_key: str | None = None
    """Of the events with one key, only the first within ``dedupe_seconds`` counts."""
    dedupe_seconds: float = 0
    throttle_key: str | None = None
    """Of the events with one key, at most ``throttle_events`` within ``throttle_seconds`` pass."""
    throttle_events: int = 0
    throttle_seconds: float = 0
    mode: Literal["", "batch", "debounce", "correlate"] = ""
    """How the events with one ``key`` wait for each other; empty where they do not."""
    key: str = ""
    max_events: int = 0
    wait_seconds: float = 0
    """``batch``, ``correlate``: from the first event. ``debounce``: from the last."""
    max_wait_seconds: float = 0
    """``debounce``: from the first event."""
    kinds: tuple[str, ...] = ()
    """``correlate``: what the event may stand for."""
    all_kinds: tuple[str, ...] = ()


def ask_of(rule: Rule, keys: WindowKeys, event: Event) -> Ask:
    """The question that ``rule`` has for its windows when it matched ``event`` under ``keys``."""
    spec = rule.spec
    ask = Ask(rule.name, dedupe_key=keys.dedupe, dedupe_seconds=spec.dedupe_seconds)
    if (limit := spec.throttle) is not None:
        ask = replace(
            ask, throttle_key=keys.throttle, throttle_events=limit.max_events, throttle_seconds=limit.per_seconds
        )
    if keys.gather is None:
        return ask
    ask = replace(ask, key=keys.gather)
    if spec.batch is not None:
        wait = spec.batch.max_wait_seconds
        return replace(ask, mode="batch", max_events=spec.batch.max_events, wait_seconds=wait, max_wait_seconds=wait)
    if spec.debounce is not None:
        wait, longest = spec.debounce.wait_seconds, spec.debounce.max_wait_seconds or float("inf")
        most = spec.debounce.max_events
        return replace(ask, mode="debounce", max_events=most, wait_seconds=wait, max_wait_seconds=max(longest, wait))
    if spec.correlate is not None:
        return replace(
            ask,
            mode="correlate",
            max_events=1,
            wait_seconds=spec.correlate.within_seconds,
            max_wait_seconds=spec.correlate.within_seconds,
            kinds=tuple(rule.kinds(event.type)),
            all_kinds=tuple(spec.correlate.all),
        )
    return ask


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
