"""Events, runs, signals and dead letters as the API shows them, and to whom."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from events.dead_letter import DeadLetter
from services.store.access.tokens import Limited
from services.store.events.event_history import EventHistory
from services.store.signals.signal_record import SignalRecord


def may_letter(caller: Limited, letter: DeadLetter) -> bool:
    """Whether the letter is in the caller's limits."""
    return caller.may_source(letter.source) and caller.may_rules([letter.rule or ""])


def may_event(caller: Limited, found: EventHistory) -> bool:
    """Whether the event is in the caller's limits."""
    return (not caller.sources or caller.may_source(found.source or "")) and caller.may_rules(found.matched)


def may_run(caller: Limited, run: Mapping[str, Any]) -> bool:
    """Whether the run is in the caller's limits."""
    rules = [tag.removeprefix("rule:") for tag in run["tags"] if tag.startswith("rule:")]
    return (not caller.sources or caller.may_source(run["event_source"] or "")) and caller.may_rules(rules)


def may_signal(caller: Limited, record: SignalRecord) -> bool:
    """Whether the signal is in the caller's limits."""
    return caller.may_key(record.signal.key)


def content_of(raw: bytes) -> Any:
    """Return the received content: as JSON if it is JSON, else as text with invalid UTF-8 as escapes."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return raw.decode("utf-8", "backslashreplace")


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with times and ids as text."""
    found: dict[str, Any] = json.loads(json.dumps(row, default=_text))
    return found


def _text(value: Any) -> str:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else str(value)
