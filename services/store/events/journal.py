"""The journal: every accepted event, in order, durable, until each consumer group has acknowledged it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from config.settings import JournalSettings
from events.event import Event, stored_event
from services.store.connection import AsyncRedis, ask_each, replicas_to_wait_for, text
from services.store.consumer_group import ConsumerGroup
from services.store.keys import JOURNAL, ROUTER_GROUP, Key, is_position
from services.store.scripts import Script, run_and_replicate
from services.store.unreadable import FAULTS

STREAM: Final = JOURNAL

_APPEND: Final = Script("events/append")


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One journalled event as a consumer group reads it; ``position`` is what is acknowledged.

    The entry of a replay can restrict it to the rules ``only``, and make new idempotency keys by ``salt``.
    """

    position: str
    event: Event
    received: str
    listener: str = ""
    deliveries: int = 1
    """How often it was delivered to a consumer: more than once if an earlier consumer ended before acknowledging it."""
    replay: bool = False
    only: tuple[str, ...] = ()
    salt: str | None = None


@dataclass(frozen=True, slots=True)
class Broken:
    """An entry that holds no event: another program wrote it, or another version of Sluice."""

    position: str
    raw: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Appended:
    """``new`` is false for a known event; ``position`` is then that of its first entry."""

    position: str
    new: bool


@dataclass(frozen=True, slots=True)
class Depth:
    """Numbers of entries: in the stream, not yet delivered to the group, and pending."""

    entries: int
    unread: int
    pending: int


class Journal:
    """The stream and the consumer group of the routers; many processes may append and read at once.

    ``consumer`` names this process among the group's readers. Every method raises `TransientError` when Redis is out
    of reach and `Backpressure` when it is full.
    """

    def __init__(self, redis: AsyncRedis, settings: JournalSettings, *, consumer: str = "reader") -> None:
        self._redis = redis
        self._settings = settings
        self._readers = ConsumerGroup(
            redis, STREAM, ROUTER_GROUP, consumer=consumer, claim_idle_seconds=settings.claim_idle_seconds
        )

    async def append(self, events: Sequence[Event], *, received: str, listener: str = "") -> list[Appended]:
        """Append the events, in order, each one (by source and id) once; when this returns, the server holds them.

        So does the number of replicas in ``redis.replicas_to_wait_for``. Raises `Backpressure` when Redis is full and
        `TransientError` when it is out of reach; then any prefix of the events may have been appended, and the same
        call again adds only the missing ones.
        """
        if not events:
            return []
        answers = await run_and_replicate(
            self._redis,
            _APPEND,
            confirmed=int(replicas_to_wait_for(self._redis).number > 0),
            known_ms=int(self._settings.seen_seconds * 1000),
            received=received,
            listener=listener,
            events=[(event.identity, event.to_json()) for event in events],
        )
        return [
            Appended(position=answer.removeprefix("-"), new=not answer.startswith("-"))
            for answer in (raw.decode() for raw in answers)
        ]

    async def append_again(
        self, entries: Sequence[tuple[Event, str, str]], *, only: Sequence[str] = (), salt: str | None = None
    ) -> list[str]:
        """Append events (each with its ``received`` and ``listener``) again, whether their ids are known or not.

        The rules, or those in ``only``, are evaluated on them again; with a ``salt`` their effects get new idempotency
        keys. Returns their positions.
        """
        replay = json.dumps({"only": list(only), "salt": salt})
        fields = [
            {"event": event.to_json(), "received": received, "listener": listener, "replay": replay}
            for event, received, listener in entries
        ]
        added = await ask_each(self._redis, lambda pipeline, one: pipeline.xadd(STREAM, one), fields)  # type: ignore[arg-type]
        return [position.decode() for _, position in added]

    async def read(
        self, *, count: int | None = None, block_seconds: float | None = None
    ) -> list[JournalEntry | Broken]:
        """Return the next entries that no consumer has read, in order; waits up to ``block_seconds`` for one.

        They stay pending for this consumer until they are acknowledged, or claimed by another.
        """
        entries = await self._readers.read(count=count or self._settings.batch, block_seconds=block_seconds)
        return [parse_entry(position, fields) for position, fields in entries]

    async def claim(self, *, count: int = 1) -> list[JournalEntry | Broken]:
        """Claim entries of consumers without a sign of life for ``claim_idle_seconds``, the oldest first.

        The default is one at a time, so that the ``deliveries`` of a poison message grow faster than those of entries
        that were only in the same batch.
        """
        entries = await self._readers.claim(count=count)
        deliveries = await self._readers.deliveries(entries) if entries else []
        return [
            parse_entry(position, fields, deliveries=times)
            for (position, fields), times in zip(entries, deliveries, strict=True)
        ]

    async def acknowledge(self, positions: Sequence[str]) -> int:
        """Acknowledge the entries for the group; return how many were still pending."""
        return await self._readers.acknowledge(positions)

    async def fetch(self, positions: Iterable[str]) -> dict[str, JournalEntry]:
        """The entries at ``positions`` that the stream still holds, by position."""
        wanted = list(dict.fromkeys(positions))
        answers = await ask_each(self._redis, lambda pipeline, at: pipeline.xrange(STREAM, at, at), wanted)
        found = (parse_entry(*rows[0]) for _, rows in answers if rows)
        return {entry.position: entry for entry in found if isinstance(entry, JournalEntry)}

    async def added(self) -> int:
        """Return the number of entries ever appended, trimmed ones included."""
        if not await self._redis.exists(STREAM):
            return 0
        return int((await self._redis.xinfo_stream(STREAM))["entries-added"])

    async def depth(self) -> Depth:
        """Return how many entries wait."""
        entries = int(await self._redis.xlen(STREAM))
        groups = await self._redis.xinfo_groups(STREAM) if entries else []
        for group in groups:
            if text(group["name"]) == ROUTER_GROUP:
                lag = group.get("lag")
                return Depth(entries, entries if lag is None else int(lag), int(group["pending"]))
        return Depth(entries, entries, 0)


def parse_entry(position: bytes, fields: Mapping[bytes, bytes], *, deliveries: int = 1) -> JournalEntry | Broken:
    """Parse an entry of the stream."""
    raw = fields.get(b"event", b"")
    try:
        only, salt, replay = _replay(fields.get(b"replay"))
        is_position(position)
        event = stored_event(json.loads(raw))
        return JournalEntry(
            position=position.decode(),
            event=event,
            received=fields[b"received"].decode(),
            listener=fields.get(b"listener", b"").decode(),
            deliveries=deliveries,
            replay=replay,
            only=only,
            salt=salt,
        )
    except FAULTS as error:
        return Broken(position.decode(), raw, f"the journal's entry {position.decode()} is not an event: {error}")


def _replay(raw: bytes | None) -> tuple[tuple[str, ...], str | None, bool]:
    """Return the rules and the salt of an entry, and whether it is a replay."""
    if raw is None:
        return (), None, False
    asked = json.loads(raw)
    only, salt = asked["only"], asked["salt"]
    if not (isinstance(only, list) and all(isinstance(rule, str) for rule in only)):
        raise TypeError("its field `replay` names no rules")
    if not (salt is None or isinstance(salt, str)):
        raise TypeError("the salt of its replay is no text")
    return tuple(only), salt, True


def position_at(seconds: float) -> str:
    """The first position that an entry of that moment (seconds since the epoch) can have."""
    return f"{max(0, int(seconds * 1000))}-0"


def order(position: str) -> tuple[int, int]:
    """Return a position as a value that sorts in the stream's order."""
    first, _, second = position.partition("-")
    return int(first), int(second or 0)


KEYS: Final = (
    Key(STREAM, "stream", "journalled event", "journal.retention_seconds, and until each group has acknowledged it"),
)
