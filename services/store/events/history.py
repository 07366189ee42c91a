"""The history: what became of each event, kept compactly in Redis for ``sluice events``."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from config.health import CANARY_TYPE
from config.settings import HistorySettings
from events.errors import NotFound, Refused
from events.event import Event
from events.glob import Globs
from events.identity import identity_of
from services.store.connection import AsyncRedis, ask_each, text
from services.store.events.event_history import EventHistory, fold, now_ms, packed, unpacked, unzipped
from services.store.events.journal import STREAM, JournalEntry, parse_entry, position_at
from services.store.events.known_events import KnownEvents
from services.store.keys import Key, is_position, scored
from services.store.runs.created_runs import CreatedRuns
from services.store.unreadable import readable

HISTORY: Final = "sluice:history:"
"""Prefix of an event's list. Its elements are JSON arrays that begin with a letter: ``v`` verdicts, ``r`` run created,
``s`` run state, ``g`` signal, ``d`` dead letter, ``c`` changes to a dead letter, ``f`` its file was
archived, ``n`` a note."""

SHARED: Final = "sluice:verdicts:"
"""Prefix of verdicts that many events have in common; their digest follows."""

MATCHED_BY: Final = "sluice:index:rule:"
"""Prefix of the index of the events that a rule matched: positions in the journal by time (ms)."""

UNMATCHED: Final = "sluice:index:unmatched"
FAILED: Final = "sluice:index:failed"

_CHUNK: Final = 500


@dataclass(frozen=True, slots=True)
class Query:
    """Which events; every criterion that is given must hold. ``type``, ``source`` and ``subject`` are globs."""

    type: str | None = None
    source: str | None = None
    subject: str | None = None
    rule: str | None = None
    """Events that this rule matched."""
    unmatched: bool = False
    failed: bool = False
    since: float | None = None
    """Seconds since the epoch, by the time of journalling; ``until`` is not included."""
    until: float | None = None
    before: str | None = None
    """A position in the journal: only events before it, for the next page of a listing."""

    def matches(self, event: Event) -> bool:
        """Whether the event's own attributes match; the canary's events match only if their type is given."""
        if event.type == CANARY_TYPE and self.type is None and self.source is None and self.rule is None:
            return False
        return _glob(self.type, event.type) and _glob(self.source, event.source) and _glob(self.subject, event.subject)


class History:
    """Reads histories, and adds lines of other parts. Raises `TransientError` or `Backpressure`."""

    def __init__(self, redis: AsyncRedis, settings: HistorySettings) -> None:
        self._redis = redis
        self._runs = CreatedRuns(redis)
        self._known = KnownEvents(redis)
        self._retention_ms = int(settings.retention_seconds * 1000)

    async def signal(self, identity: str, signal_id: str, outcome: str) -> None:
        """Record that a signal of the event got the ``outcome``."""
        await self.add(identity, ["g", now_ms(), signal_id, None, outcome])

    async def add(self, identity: str, line: Sequence[Any]) -> None:
        """Write a line at the end of the event's history."""
        await self.add_each([(identity, line)])

    async def add_each(self, lines: Iterable[tuple[str, Sequence[Any]]]) -> None:
        """Write lines, each at the end of an event's history."""
        pipeline = self._redis.pipeline(transaction=True)
        for identity, line in lines:
            pipeline.rpush(HISTORY + identity, packed(line))
            pipeline.pexpire(HISTORY + identity, self._retention_ms)
        await pipeline.execute()

    async def get(self, identity: str) -> EventHistory | None:
        """Return the event's history; None for an event that is not (or no longer) known."""
        known = await self._known.position(identity)
        stored: list[Any] = await self._redis.lrange(HISTORY + identity, 0, -1)
        lines = list(readable(HISTORY + identity, unpacked, stored))
        position = known or next((line[2] for line in lines if line[0] == "v"), "")
        if not position:
            return None
        rows: Any = await self._redis.xrange(STREAM, position, position)
        return await self._folded(identity, position, next(iter(entries_of(rows)), None), lines)

    async def choose(self, id_: str, source: str | None = None) -> str:
        """Return the identity of the event with this id; ``source`` (exact, or a glob) chooses where several share it.

        Raises `NotFound` for an id that is not known (any more), and `Refused` (``ambiguous``), which names the
        sources, if several events have it.
        """
        identities = await self._known.with_id(id_, prefixes=(HISTORY,))
        if source is not None and (exact := identity_of(source, id_)) in identities:
            return exact
        found = await self._known.sources(identities)
        if source is not None:
            found = {identity: of for identity, of in found.items() if _glob(source, of)}
        if not found:
            whose = f" from the source {source!r}" if source is not None else ""
            raise NotFound(f"the event {id_!r}{whose} is not known (any more)")
        if len(found) > 1:
            names = ", ".join(sorted("an unknown source" if of is None else repr(of) for of in found.values()))
            msg = f"{len(found)} events have the id {id_!r}, from {names}: choose one with --source"
            raise Refused("ambiguous", msg)
        return next(iter(found))

    async def search(self, query: Query, *, limit: int) -> list[EventHistory]:
        """Return the events that match ``query``, newest first, without verdicts of rules that did not match."""
        return [found async for found in self.walk(query, limit=limit)]

    async def walk(self, query: Query, *, limit: int | None = None) -> AsyncIterator[EventHistory]:
        """Yield the events of `search` as they are found, all of them unless there is a ``limit``."""
        seen: set[str] = set()
        async for entries in self._candidates(query):
            fresh = [one for one in entries if one.event.identity not in seen and query.matches(one.event)]
            for found in await self.of_entries(fresh):
                if found.identity not in seen and as_asked(query, found):
                    seen.add(found.identity)
                    yield found
                    if limit is not None and len(seen) >= limit:
                        return

    async def of_entries(self, entries: Sequence[JournalEntry]) -> list[EventHistory]:
        """Return the histories of these events, in their order, without verdicts of rules that did not match."""
        lines = await self._lines([one.event.identity for one in entries])
        found = zip(entries, lines, strict=True)
        return [fold(entry.event.identity, entry.position, entry, own, shared={}) for entry, own in found]

    async def events_of_run(self, run_id: str) -> list[str]:
        """The identities of the events that led to the run."""
        run = await self._runs.get(run_id)
        return [identity for identity, _ in run.events] if run else []

    async def recovered(self, run_id: str) -> None:
        """Record that a failed run has completed: events without another failure are no longer listed as failed."""
        for identity in await self.events_of_run(run_id):
            found = await self.get(identity)
            if found is not None and not found.failed:
                await self._redis.zrem(FAILED, found.position)

    async def _candidates(self, query: Query) -> AsyncIterator[list[JournalEntry]]:
        """Yield entries by falling position, from the narrowest index that applies, or else from the whole journal."""
        index = FAILED if query.failed else UNMATCHED if query.unmatched else None
        if index is None and query.rule is not None:
            index = MATCHED_BY + query.rule
        if index is None:
            async for entries in self._journal(query):
                yield entries
            return
        start = 0
        low = "-inf" if query.since is None else int(query.since * 1000)
        high = "+inf" if query.until is None else f"({int(query.until * 1000)}"
        if query.before is not None:
            high = query.before.partition("-")[0]
        while True:
            found: list[Any] = await self._redis.zrevrangebyscore(index, high, low, start=start, num=_CHUNK)
            positions = readable(index, is_position, found)
            if query.before is not None:
                # Of one millisecond, an index has the positions as texts in falling order.
                same, before = f"{high}-", query.before
                positions = (one for one in positions if not (one.startswith(same) and one >= before))
            answers = await ask_each(self._redis, lambda pipeline, one: pipeline.xrange(STREAM, one, one), positions)
            yield entries_of(rows[0] for _, rows in answers if rows)
            if len(found) < _CHUNK:
                return
            start += _CHUNK

    async def _journal(self, query: Query) -> AsyncIterator[list[JournalEntry]]:
        low = "-" if query.since is None else position_at(query.since)
        high = "+" if query.until is None else f"({position_at(query.until)}"
        if query.before is not None:
            high = f"({query.before}"
        while True:
            rows = await self._redis.xrevrange(STREAM, max=high, min=low, count=_CHUNK)
            if not rows:
                return
            yield [entry for entry in entries_of(rows) if not entry.replay]
            high = f"({text(rows[-1][0])}"

    async def _lines(self, identities: Sequence[str]) -> list[list[list[Any]]]:
        found = await ask_each(self._redis, lambda pipeline, one: pipeline.lrange(HISTORY + one, 0, -1), identities)
        return [list(readable(HISTORY + identity, unpacked, stored)) for identity, stored in found]

    async def _folded(
        self, identity: str, position: str, entry: JournalEntry | None, lines: Sequence[list[Any]]
    ) -> EventHistory:
        digests = {line[4] for line in lines if line[0] == "v" and line[4]}
        shared: dict[str, list[list[Any]]] = {}
        for digest in digests:
            stored = await self._redis.get(SHARED + digest)
            shared[digest] = []
            for rows in readable(SHARED + digest, _verdicts, [stored] if isinstance(stored, bytes) else []):
                shared[digest] = rows
        return fold(identity, position, entry, lines, shared=shared)


def as_asked(query: Query, found: EventHistory) -> bool:
    """Whether the event's history matches ``query``."""
    return (
        (query.rule is None or query.rule in found.matched)
        and not (query.unmatched and (found.matched or not found.judged))
        and not (query.failed and not found.failed)
    )


def entries_of(rows: Iterable[Any]) -> list[JournalEntry]:
    """Return the readable ones of the journal's entries that Redis returned."""
    parsed = (parse_entry(position, fields) for position, fields in rows)
    return [entry for entry in parsed if isinstance(entry, JournalEntry)]


def _glob(pattern: str | None, value: str | None) -> bool:
    return pattern is None or (value is not None and bool(Globs((pattern,)).matches(value)))


def _verdicts(stored: bytes) -> list[list[Any]]:
    rows: list[list[Any]] = json.loads(unzipped(stored))
    fold("", "0-0", None, [["v", 0, "0-0", "", "", rows]], shared={})
    return rows


KEYS: Final = (
    Key(HISTORY + "*", "list", "line of an event's history", "history.retention_seconds after the last one", unpacked),
    Key(SHARED + "*", "string", "verdicts that many events share", "history.retention_seconds and 2 hours", _verdicts),
    Key(
        MATCHED_BY + "*",
        "zset",
        "position of an event that a rule matched",
        "history.retention_seconds",
        scored(is_position),
    ),
    Key(
        UNMATCHED, "zset", "position of an event that no rule matched", "history.retention_seconds", scored(is_position)
    ),
    Key(FAILED, "zset", "position of an event that did not end well", "history.retention_seconds", scored(is_position)),
)
