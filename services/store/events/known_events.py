"""Finds the events that the journal knows, by which repeated events are recognised."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final

from events.identity import id_of
from events.short_ids import LEAST, the_one
from services.store.connection import AsyncRedis, ask_each
from services.store.events.journal import STREAM
from services.store.keys import Key, is_position
from services.store.unreadable import FAULTS, readable_one

KNOWN: Final = "sluice:known:"
"""Prefix of the key of a known event; the event's identity follows. Its value is the event's position."""

SCANNED: Final = 5000
"""Number of keys in one step of a scan."""


class KnownEvents:
    """Finds events of the journal by identity, or by their id alone. Raises `TransientError`."""

    def __init__(self, redis: AsyncRedis) -> None:
        self._redis = redis

    async def position(self, identity: str) -> str | None:
        """Return the event's position in the journal, if the event is (still) known."""
        return (await self._positions([identity]))[0]

    async def sources(self, identities: Iterable[str]) -> dict[str, str | None]:
        """Return the source of each event; None if the journal does not hold the event (any more)."""
        wanted = list(dict.fromkeys(identities))
        positions = await self._positions(wanted)
        found = await ask_each(
            self._redis, lambda pipeline, at: pipeline.xrange(STREAM, at or "0", at or "0"), positions
        )
        return {identity: _source(rows) for identity, (_, rows) in zip(wanted, found, strict=True)}

    async def with_id(self, id_: str, *, prefixes: Iterable[str] = ()) -> list[str]:
        """Return the identities of events with this id that are known, or have a key with one of ``prefixes``.

        Scans every key in Redis, about a second for a million events; only for commands that people run.
        """
        found = await self._scanned(f"{escaped(id_)}@*", prefixes)
        return sorted(name for name in found if id_of(name) == id_ != name)

    async def whole_id(self, given: str, *, prefixes: Iterable[str] = ()) -> str:
        """Return the id of the event with this id or beginning of an id; ``given`` if there is none.

        Scans as `with_id` does. Raises `Refused` (``ambiguous``) if several ids begin so.
        """
        if len(given) < LEAST:
            return given
        names = await self._scanned(f"{escaped(given)}*@*", prefixes)
        found = {id_of(name) for name in names if id_of(name).startswith(given)}
        return given if given in found or not found else the_one(found, given, what="event")

    async def _scanned(self, pattern: str, prefixes: Iterable[str]) -> set[str]:
        """Yield the rest after `KNOWN` or one of the prefixes, for keys of which this rest matches the pattern."""
        before = (KNOWN, *prefixes)
        raw = [key async for key in self._redis.scan_iter(match=f"sluice:*:{pattern}", count=SCANNED)]
        keys = [key.decode("utf-8", "replace") for key in raw]
        return {key.removeprefix(prefix) for key in keys for prefix in before if key.startswith(prefix)}

    async def _positions(self, identities: list[str]) -> list[str | None]:
        answers: list[Any] = await self._redis.mget([KNOWN + one for one in identities]) if identities else []
        return [
            readable_one(KNOWN + identity, is_position, answer)
            for identity, answer in zip(identities, answers, strict=True)
        ]


def escaped(text: str) -> str:
    """Return a pattern of Redis that only the text itself matches."""
    return re.sub(r"([*?\[\]\\])", r"\\\1", text)


def _source(rows: Any) -> str | None:
    try:
        source = json.loads(rows[0][1][b"event"])["source"]
    except FAULTS:
        return None
    return source if isinstance(source, str) else None


KEYS: Final = (Key(KNOWN + "*", "string", "position of an event in the journal", "journal.seen_seconds", is_position),)
