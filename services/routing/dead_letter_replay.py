"""Replays dead letters: as they are, or after an edit."""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import JsonValue

from events.dead_letter import DeadLetter
from events.errors import Refused, RejectedEvent
from events.event import Event, parse_event, stored_event
from events.signal import ResumeSignal, parse_signal, signal_from_mapping
from events.untrusted_json import Limits, parse_json
from services.store.dead_letters import DeadLetters
from services.store.events.event_history import change_line
from services.store.events.history import History
from services.store.events.journal import Journal
from services.store.files.returns import Again, FileReturns

Edits = Mapping[str, JsonValue]
"""Values by dotted path, such as ``data.amount``; a number in a path is an index."""

Changed = tuple[str, JsonValue, JsonValue]
"""A path, the value before and the value after."""


class DeadReplay:
    """Replays dead letters: submits the content again where it failed, and then deletes the letter.

    A crash in between leaves the letter, and a second replay has the same ids and keys.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        letters: DeadLetters,
        history: History,
        returns: FileReturns,
        submit_signal: Callable[[ResumeSignal, str], Awaitable[object]],
        limits: Limits,
    ) -> None:
        """``submit_signal`` takes a signal and its origin, as text for people."""
        self._journal = journal
        self._letters = letters
        self._history = history
        self._returns = returns
        self._submit_signal = submit_signal
        self._limits = limits

    async def replay(
        self, letter: DeadLetter, edits: Edits, *, default_type: str | None = None, by: str | None = None
    ) -> None:
        """Replay one letter. Raises `Refused` if its content still cannot be read; the letter then stays.

        Changes by ``edits`` are recorded, with ``by``, in the event's history or the signal's log.

        An event goes to the rule that could not act on it, after its file, if it has one, was moved back; a message is
        accepted as if it came now (plain JSON as an event of ``default_type``); a signal is submitted under a new id,
        because its own id has an outcome.
        """
        raw = edited(letter.raw, edits, self._limits) if edits else letter.raw
        changes = _changes(letter.raw, edits, self._limits)
        origin = _origin(letter, changes, by)
        now = datetime.now(UTC).isoformat()
        match letter.kind:
            case "event":
                event = _event(raw, self._limits)
                only = [letter.rule] if letter.rule else []
                again = Again(only=tuple(only), event=event.to_json().decode())
                has_file = event.identity == letter.identity and await self._returns.bring_back(
                    event.identity, again=again, by=by
                )
                await self._keep(event.identity, letter, changes, by)
                if not has_file:
                    await self._journal.append_again([(event, now, "dead-letter")], only=only)
            case "message" if letter.carries == "signal":
                await self._submit_signal(parse_signal(raw, limits=self._limits, default_id=letter.id), origin)
            case "message":
                event = parse_event(
                    raw,
                    limits=self._limits,
                    default_type=default_type,
                    default_source=letter.source,
                    default_id=letter.id,
                )
                await self._keep(event.identity, letter, changes, by)
                await self._journal.append([event], received=now, listener=letter.source)
            case "signal":
                signal = _signal_again(raw, self._limits)
                if signal.event_identity is not None:
                    await self._keep(signal.event_identity, letter, changes, by)
                await self._submit_signal(signal, origin)
            case "job":
                raise Refused("foreign-job", "a job that Sluice did not write is never run: discard the letter")
            case "stored":
                raise Refused(letter.code, "what could not be read in Redis is not put back: discard the letter")
        await self._letters.replayed(letter)

    async def _keep(self, identity: str, letter: DeadLetter, changes: Sequence[Changed], by: str | None) -> None:
        if changes:
            await self._history.add(identity, change_line(by, letter.id, changes))


def parse_edit(text: str) -> tuple[str, JsonValue]:
    """Parse ``path=value`` of the command line; a value that is not JSON is a string."""
    path, equals, value = text.partition("=")
    if not equals or not all(path.split(".")):
        raise Refused("bad-edit", f"{text!r} is not of the form data.amount=5")
    try:
        return path, json.loads(value)
    except ValueError:
        return path, value


def edited(raw: bytes, edits: Edits, limits: Limits) -> bytes:
    """Return the JSON ``raw`` with the values set; raises `Refused` for a path that does not exist."""
    value = parse_json(raw, limits)
    for path, new in edits.items():
        _set(value, path, new)
    return json.dumps(value, ensure_ascii=False).encode()


def _changes(raw: bytes, edits: Edits, limits: Limits) -> list[Changed]:
    before = parse_json(raw, limits) if edits else None
    return [(path, _at(before, path.split(".")), new) for path, new in edits.items()]


def _at(value: JsonValue, path: Sequence[str]) -> JsonValue:
    """The value at a path; None where there is none."""
    for name in path:
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value


def _origin(letter: DeadLetter, changes: Sequence[Changed], by: str | None) -> str:
    """The origin of a replayed signal, as it is recorded in the signal's log."""
    said = "; ".join(f"{path}: {json.dumps(before)} -> {json.dumps(after)}" for path, before, after in changes)
    whose = f" by {by}" if by else ""
    return f"replay of the dead letter {letter.id}{whose}" + (f", changed: {said}" if said else "")


def _set(value: JsonValue, path: str, new: JsonValue) -> None:
    """Set the value at a path such as ``data.items.0``; raises `Refused` for a path that does not exist."""
    *before, last = path.split(".")
    at: Any = value
    for name in before:
        at = _step(at, name, path)
    if isinstance(at, dict):
        at[last] = new
    elif isinstance(at, list) and last.isdigit() and int(last) < len(at):
        at[int(last)] = new
    else:
        raise Refused("bad-edit", f"the path {path!r} leads nowhere in this message")


def _step(at: Any, name: str, path: str) -> Any:
    if isinstance(at, dict):
        if at.get(name) is None:
            at[name] = {}
        return at[name]
    if isinstance(at, list) and name.isdigit() and int(name) < len(at):
        return at[int(name)]
    raise Refused("bad-edit", f"the path {path!r} leads nowhere in this message")


def _signal_again(raw: bytes, limits: Limits) -> ResumeSignal:
    value = parse_json(raw, limits)
    if not isinstance(value, dict):
        raise RejectedEvent("not-an-object", "the signal is not a JSON object")
    fields = {name: part for name, part in value.items() if name not in {"id", "sent"} and part is not None}
    return signal_from_mapping({**fields, "id": f"{str(value.get('id', ''))[:240]}~{uuid.uuid4().hex[:8]}"})


def _event(raw: bytes, limits: Limits) -> Event:
    value = parse_json(raw, limits)
    if not isinstance(value, dict) or "specversion" not in value:
        raise RejectedEvent("no-event", "the journal no longer held the event when it failed, so it cannot be replayed")
    return stored_event(value)
