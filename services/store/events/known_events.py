"""The events that the journal knows, so that a repeat is told from a new event."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final

from events.identity import TAIL_LENGTH, id_of
from services.store.connection import AsyncRedis, translated
from services.store.keys import Key, is_position
from services.store.unreadable import EXPECT, FAULTS, readable

KNOWN: Final = "sluice:known:"
"""Prefix of the key that remembers an event; behind it the event's identity. Its value is the event's position."""

KNOWN_BY_ID: Final = "sluice:seen:"
"""Prefix of the key by which an event was remembered when its id alone was its identity. Nothing writes it any more,
and each runs out after ``journal.seen_seconds``."""

# Lua: the position of the event with this key and JSON, or nil for one that is not known.
# A key of the old kind is for the source that its entry names. Where the entry is gone or cannot be read, nobody can
# say whose the id was: then the event counts as known, for a second run is worse than none.
KNOWN_POSITION: Final = (
    EXPECT
    + f"""
local function position_at(key)
  local position = redis.call('GET', key)
  if position and not string.match(position, '^%d+%-%d+$') then expect('position of an event', key) end
  return position
end
local function source_in(json)
  local read, event = pcall(cjson.decode, json)
  local source = read and type(event) == 'table' and event['source']
  return type(source) == 'string' and source or nil
end
local function known_position(stream, key, json)
  local position = position_at(key)
  if position then return position end
  position = position_at('{KNOWN_BY_ID}' .. string.sub(key, {len(KNOWN) + 1}, -{TAIL_LENGTH + 1}))
  if not position then return nil end
  local entry = redis.call('XRANGE', stream, position, position)[1]
  for i = 1, entry and #entry[2] or 0, 2 do
    if entry[2][i] == 'event' then
      local source = source_in(entry[2][i + 1])
      if source and source ~= source_in(json) then return nil end
    end
  end
  return position
end
"""
)

SCANNED: Final = 5000
"""How many keys one step of a scan looks at."""


class KnownEvents:
    """Finds events of ``stream`` by identity, or by their id alone. Raises `TransientError`."""

    def __init__(self, redis: AsyncRedis, *, stream: str) -> None:
        self._redis = redis
        self._stream = stream

    async def position(self, identity: str) -> str | None:
        """Where the journal took the event in, if it knows the event (still)."""
        return (await self._positions([identity]))[0]

    async def sources(self, identities: Iterable[str]) -> dict[str, str | None]:
        """The source of each event; None where the journal does not hold the event (any more)."""
        wanted = list(dict.fromkeys(identities))
        positions = await self._positions(wanted)
        with translated():
            pipeline = self._redis.pipeline(transaction=False)
            for position in positions:
                pipeline.xrange(self._stream, position or "0", position or "0")
            answers = await pipeline.execute() if wanted else []
        return {identity: _source(rows) for identity, rows in zip(wanted, answers, strict=True)}

    async def with_id(self, id_: str, *, prefixes: Iterable[str] = ()) -> list[str]:
        """The identities of the events with this id that are known, or have a key behind one of ``prefixes``.

        Looks at every key in Redis, so it is for people's questions only: about a second for a million events.
        """
        before = (KNOWN, *prefixes)
        pattern = f"sluice:*:{escaped(id_)}@*"
        with translated():
            raw = [key async for key in self._redis.scan_iter(match=pattern, count=SCANNED)]
            alone = await self._redis.exists(KNOWN_BY_ID + id_, *(prefix + id_ for prefix in prefixes))
        keys = [key.decode("utf-8", "replace") for key in raw]
        found = {key.removeprefix(prefix) for key in keys for prefix in before if key.startswith(prefix)}
        return sorted(name for name in found if id_of(name) == id_ != name) + ([id_] if alone else [])

    async def _positions(self, identities: list[str]) -> list[str | None]:
        with translated():
            keys = [key + identity for identity in identities for key in (KNOWN, KNOWN_BY_ID)]
            answers: list[Any] = await self._redis.mget(keys) if keys else []
        rows = [
            [row for row in (new_row, old_row) if row[1]]
            for new_row, old_row in zip(
                zip(keys[::2], answers[::2], strict=True), zip(keys[1::2], answers[1::2], strict=True), strict=True
            )
        ]
        return [next(readable(_key_of, _position_in, row), None) for row in rows]


def _key_of(row: tuple[str, bytes]) -> str:
    return row[0]


def _position_in(row: tuple[str, bytes]) -> str:
    return is_position(row[1])


def escaped(text: str) -> str:
    """The text as a pattern of Redis that nothing but the text matches."""
    return re.sub(r"([*?\[\]\\])", r"\\\1", text)


def _source(rows: Any) -> str | None:
    try:
        source = json.loads(rows[0][1][b"event"])["source"]
    except FAULTS:
        return None
    return source if isinstance(source, str) else None


KEYS: Final = (
    Key(KNOWN + "*", "string", "position of an event in the journal", "journal.seen_seconds", is_position),
    Key(KNOWN_BY_ID + "*", "string", "the same, as earlier versions wrote it", "journal.seen_seconds", is_position),
)
