"""Finds an event by an id (its own, of a run, a signal or a dead letter), the start of one, or a file."""

from __future__ import annotations

import os
from typing import Any, Final

from events.errors import NotFound, Refused
from events.event import Event
from events.identity import id_of
from services.store.connection import AsyncRedis, text
from services.store.dead_letters import LETTER, DeadLetters
from services.store.events.history import HISTORY, History
from services.store.events.journal import STREAM, JournalEntry, parse_entry
from services.store.events.known_events import KNOWN, SCANNED, escaped
from services.store.files.ledger import watch_of
from services.store.runs.created_runs import RUN
from services.store.signals.signal_keys import RECORD
from services.store.signals.signal_queries import SignalQueries

SHORTEST: Final = 4
"""Characters that the start of an id must have at least."""

_MOST_NAMED: Final = 5
_PAGE: Final = 500


class EventFinder:
    """Scans every key in Redis, and for a file the whole journal; only for commands that people run."""

    def __init__(self, redis: AsyncRedis, history: History) -> None:
        self._redis = redis
        self._history = history
        self._letters = DeadLetters(redis)
        self._signals = SignalQueries(redis)

    async def find(self, name: str, source: str | None = None) -> str:
        """Return the identity of the event; ``source`` chooses where several share an id.

        A whole id wins over the start of one, and the newest event of a file over earlier ones. Raises `NotFound`, and
        `Refused` (``ambiguous``) if several events match.
        """
        try:
            return await self._history.choose(name, source)
        except NotFound:
            if source is not None:
                raise
        for look in (self._of_run, self._of_letter, self._of_signal):
            found = await look(name)
            if found:
                return _only(name, found)
        if (of_file := await self._of_file(name)) is not None:
            return of_file
        return _only(name, await self._beginning(name))

    async def _of_run(self, run_id: str) -> set[str]:
        return set(await self._history.events_of_run(run_id))

    async def _of_letter(self, letter_id: str) -> set[str]:
        letter = await self._letters.get(letter_id)
        if letter is None:
            return set()
        if letter.identity is not None:
            return {letter.identity}
        if letter.event_id is None:
            raise NotFound(f"the dead letter {letter_id} is of no event: `sluice dead show {letter_id}` shows it")
        return {await self._history.choose(letter.event_id)}

    async def _of_signal(self, signal_id: str) -> set[str]:
        try:
            record = await self._signals.get(await self._signals.choose(signal_id))
        except NotFound:
            return set()
        identity = record.signal.event_identity if record is not None else None
        if identity is None:
            raise NotFound(f"no event led to the signal {signal_id}: `sluice signals show {signal_id}` shows it")
        return {identity}

    async def _of_file(self, name: str) -> str | None:
        """The newest event of the file with this path, also in an archive folder, path below its watch, or name."""
        path = _absolute(name)
        position = "+"
        while True:
            rows: Any = await self._redis.xrevrange(STREAM, max=position, count=_PAGE)
            for entry in (parse_entry(*row) for row in rows):
                if isinstance(entry, JournalEntry) and _is_about(entry.event, name, path):
                    return entry.event.identity
            if len(rows) < _PAGE:
                return None
            position = f"({text(rows[-1][0])}"

    async def _beginning(self, start: str) -> set[str]:
        """Return the events whose id, or that of their run, signal or letter, begins so; none if it is too short."""
        if len(start) < SHORTEST:
            return set()
        found: set[str] = set()
        for prefix in (KNOWN, HISTORY, RUN, LETTER, RECORD):
            keys = [text(key) async for key in self._redis.scan_iter(match=f"{prefix}{escaped(start)}*", count=SCANNED)]
            for name in (key.removeprefix(prefix) for key in keys):
                if prefix in {KNOWN, HISTORY}:
                    found.add(name)
                elif prefix == RUN:
                    found |= await self._of_run(name)
                else:
                    found |= await (self._of_letter(name) if prefix == LETTER else self._of_signal(name))
        return found


def _absolute(path: str) -> str:
    return os.path.abspath(path)  # noqa: PTH100 - no link is followed


def _is_about(event: Event, name: str, path: str) -> bool:
    if watch_of(event.id) is None or not isinstance(event.data, dict):
        return False
    arrived, subject = str(event.data.get("path")), event.subject or ""
    watch = arrived.removesuffix(subject)
    archived = path.removeprefix(watch).partition("/")[2] if path.startswith(watch) else ""
    return path == arrived or archived == subject or name in {subject, event.data.get("name")}


def _only(name: str, identities: set[str]) -> str:
    if not identities:
        raise NotFound(
            f"nothing is called {name!r}: no event, run, signal, dead letter or file is known by it (any more)"
        )
    if len(identities) > 1:
        ids = sorted(id_of(identity) for identity in identities)
        more = f" and {len(ids) - _MOST_NAMED} more" if len(ids) > _MOST_NAMED else ""
        raise Refused(
            "ambiguous", f"{len(ids)} events are meant by {name!r}: name one of {', '.join(ids[:_MOST_NAMED])}{more}"
        )
    return next(iter(identities))
