"""Events and dead letters as rows; times are datetimes, ids are text."""

from __future__ import annotations

from typing import Any, Final

from events.dead_letter import DeadLetter
from services.store.event_transitions import EventTransitions
from services.store.events.event_history import EventHistory

_LETTER: Final = (
    "last_failed", "first_failed", "id", "kind", "code", "rule", "source", "event_id", "attempts", "reason"
)  # fmt: skip


def letter_row(letter: DeadLetter) -> dict[str, Any]:
    """Return a dead letter's row of a listing."""
    return {name: getattr(letter, name) for name in _LETTER}


async def whole_event(found: EventHistory, transitions: EventTransitions) -> dict[str, Any]:
    """Return one event with its history, and its open effects."""
    return found.model_dump() | {
        "outcome": found.outcome,
        "reason": found.reason,
        "waits_for": await transitions.open_effects(found.identity),
        "timings_ms": found.timings_ms,
    }
