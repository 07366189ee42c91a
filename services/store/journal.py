"""The journal: every accepted event, in order, durable, until each consumer group has acknowledged it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from config.settings import JournalSettings
from events.event import Event
from services.store.connection import AsyncRedis, translated

STREAM: Final = "sluice:journal"
SEEN: Final = "sluice:seen:"
"""Prefix of the key that remembers an event id; its value is the entry's id in the stream."""

ROUTER_GROUP: Final = "router"

# KEYS: stream, then one seen key an event; ARGV: seen time in ms, received at (ISO), then the JSON for each key.
# Answers, for each event, the new entry's id, or the earlier one's behind a minus sign.
APPEND_SCRIPT: Final = """
local answers = {}
for i = 2, #KEYS do
  local known = redis.call('GET', KEYS[i])
  if known then
    answers[i - 1] = '-' .. known
  else
    local entry = redis.call('XADD', KEYS[1], '*', 'event', ARGV[i + 1], 'received', ARGV[2])
    redis.call('SET', KEYS[i], entry, 'PX', ARGV[1])
    answers[i - 1] = entry
  end
end
return answers
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """One journalled event as a consumer group reads it; ``position`` is what is acknowledged."""

    position: str
    event: Event
    received: str


@dataclass(frozen=True, slots=True)
class Appended:
    """``new`` is false where the id was known; ``position`` is then that of the first event under it."""

    position: str
    new: bool


class Journal:
    """The stream and its consumer group ``group``; many processes may append and read at once."""

    def __init__(self, redis: AsyncRedis, settings: JournalSettings, *, group: str = ROUTER_GROUP) -> None:
        self._redis = redis
        self._settings = settings
        self._group = group
        self._append = redis.register_script(APPEND_SCRIPT)

    async def append(self, events: Sequence[Event], *, received: str) -> list[Appended]:
        """Take the events in, in order, each id once; when this returns, the server holds them.

        Raises `Backpressure` when Redis is full and `TransientError` when it is out of reach; then any prefix of
        the events may have been taken in, and the same call again adds only what is missing.
        """
        if not events:
            return []
        keys = [STREAM, *(SEEN + event.id for event in events)]
        seen_ms = int(self._settings.seen_seconds * 1000)
        with translated():
            answers = await self._append(keys=keys, args=[seen_ms, received, *(event.to_json() for event in events)])
        return [
            Appended(position=answer.removeprefix("-"), new=not answer.startswith("-"))
            for answer in (raw.decode() for raw in answers)
        ]
