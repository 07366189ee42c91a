"""The windows of the rules: which events passed, which are held, and which closed windows are to be handled.

All routers share them. One atomic script applies the windows of a rule to an event, with the server's clock. The step
that empties a window makes its events a *closed* window, which is kept until a router has handled it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from events.window import Ask
from services.store.connection import AsyncRedis, ask_each, text
from services.store.keys import Key, is_number, is_object, is_position, is_text, pair, scored
from services.store.scripts import Script
from services.store.unreadable import readable, reading

OPEN: Final = "sluice:windows:open"
"""Hash: name (rule, newline, key) of each window with events to how it closes."""

DUE: Final = "sluice:windows:due"
"""The names of these windows, by the time (ms) at which they close."""

READY: Final = "sluice:windows:ready"
"""The ids of closed windows, by the time (ms) from which they may be claimed."""

POSITIONS: Final = "sluice:windows:positions"
"""The journal's positions of all events in open and closed windows, by their time (ms)."""

DROPPED: Final = "sluice:windows:dropped"
"""Hash: number of events that each rule's windows have dropped."""

COUNT: Final = "sluice:windows:count"
"""Number of windows that have closed."""

PREFIX: Final = "sluice:window:"

_LONGEST_MS: Final = 400 * 86_400_000
_CLOSED_AT_ONCE: Final = 100

_OFFER: Final = Script("rules/offer")
_CLOSE_DUE: Final = Script("rules/close_due")
_CLAIM: Final = Script("rules/claim_closed")
_NEXT: Final = Script("rules/next_due")
_DIVIDE: Final = Script("rules/divide")

Why = Literal["full", "time", "complete", "incomplete"]
Said = Literal["pass", "held", "closed", "repeated", "duplicate", "throttled"]


@dataclass(frozen=True, slots=True)
class Reply:
    """The windows' decision on an event.

    ``held`` and ``closed`` (by this very event): gathered. ``repeated``: gathered before, at another position.
    ``duplicate`` of ``other``, ``throttled``: dropped.
    """

    said: Said
    other: str = ""


@dataclass(frozen=True, slots=True)
class WindowMember:
    """An event in a closed window."""

    identity: str
    position: str
    kind: str
    salt: str | None


@dataclass(frozen=True, slots=True)
class Closed:
    """A closed window; ``full``, by ``time``, with its kinds ``complete``, or ``incomplete``."""

    id: str
    rule: str
    key: str
    why: Why
    members: tuple[WindowMember, ...]


@dataclass(frozen=True, slots=True)
class Drop:
    """A dropped event; ``other`` is the identity of the event that it repeats, if that is the reason."""

    at_ms: int
    identity: str
    why: Literal["duplicate", "throttled"]
    key: str
    other: str


@dataclass(frozen=True, slots=True)
class Counts:
    """Number of windows with events, of closed windows that are not handled, and of the events in both."""

    open: int
    closed: int
    events: int


class WindowStore:
    """Every method raises `TransientError` when Redis is out of reach and `Backpressure` when it is full."""

    def __init__(self, redis: AsyncRedis, *, seen_seconds: float) -> None:
        """``seen_seconds`` is how long a gathered event is remembered, so that it is not gathered twice."""
        self._redis = redis
        self._seen_ms = int(seen_seconds * 1000)

    async def offer(self, ask: Ask, *, identity: str, position: str, salt: str | None = None) -> Reply:
        """Let the windows decide on an event. The same event at the same position gets the same decision again."""
        kept = json.dumps({"i": identity, "p": position, "s": salt}, separators=(",", ":"))
        said, other = await _OFFER(
            self._redis,
            rule=ask.rule,
            member=f"{identity}~{salt}" if salt else identity,
            position=position,
            kept=kept,
            known_ms=self._seen_ms,
            dedupe_key="" if ask.dedupe_key is None else f"+{ask.dedupe_key}",
            dedupe_ms=_ms(ask.dedupe_seconds),
            throttle_key="" if ask.throttle_key is None else f"+{ask.throttle_key}",
            throttle_count=ask.throttle_events,
            throttle_ms=_ms(ask.throttle_seconds),
            mode=ask.mode,
            key=ask.key,
            most_events=ask.max_events,
            wait_ms=_ms(ask.wait_seconds),
            longest_wait_ms=_ms(ask.max_wait_seconds),
            kinds=json.dumps(ask.kinds),
            all_kinds=json.dumps(ask.all_kinds),
        )
        return Reply(text(said), text(other))  # type: ignore[arg-type]

    async def close_due(self) -> int:
        """Close windows that are due, at most a hundred; return their number."""
        return int(await _CLOSE_DUE(self._redis, most=_CLOSED_AT_ONCE))

    async def claim(self, *, lease_seconds: float, count: int = 10) -> list[Closed]:
        """Claim closed windows that no other router has claimed; they can be claimed again after the lease."""
        ids = list(readable(READY, text, await _CLAIM(self._redis, most=count, lease_ms=_ms(lease_seconds))))
        if not ids:
            return []
        pipeline = self._redis.pipeline(transaction=False)
        for id_ in ids:
            pipeline.hgetall(f"{PREFIX}closed:{id_}")
            pipeline.lrange(f"{PREFIX}closed:{id_}:events", 0, -1)
        answers = await pipeline.execute()
        found = list(zip(ids, answers[::2], answers[1::2], strict=True))
        gone = [id_ for id_, fields, _ in found if not fields]
        if gone:
            await self._redis.zrem(READY, *gone)
        there = [row for row in found if row[1]]
        return list(readable(lambda row: f"{PREFIX}closed:{row[0]}", lambda row: _closed(*row), there))

    async def done(self, closed: Closed, *, again: bool = False) -> None:
        """Delete a closed window whose effects have all been handed on.

        With ``again``, its events may be gathered once more, because they had no effect.
        """
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.zrem(READY, closed.id)
        pipeline.delete(f"{PREFIX}closed:{closed.id}", f"{PREFIX}closed:{closed.id}:events")
        if closed.members:
            pipeline.zrem(POSITIONS, *(member.position for member in closed.members))
        if again:
            names = (f"{one.identity}~{one.salt}" if one.salt else one.identity for one in closed.members)
            pipeline.delete(*(f"{PREFIX}seen:{closed.rule}\n{name}" for name in names))
        await pipeline.execute()

    async def divide(self, closed: Closed) -> None:
        """Replace it by two closed windows, with the first and the second half of its events; they can be claimed.

        Only for a window without effects: those have the keys of the whole window.
        """
        await _DIVIDE(self._redis, id=closed.id)

    async def next_seconds(self) -> float | None:
        """Return the seconds until a window can be closed or claimed; None if no event is held."""
        left = int(await _NEXT(self._redis))
        return left / 1000 if left >= 0 else None

    async def oldest_positions(self) -> list[str]:
        """Return the first position in the journal that windows still need, if any, which must not be trimmed."""
        found: Any = await self._redis.zrange(POSITIONS, 0, 0)
        return [position.partition("-")[0] + "-0" for position in readable(POSITIONS, is_position, found)]

    async def counts(self) -> Counts:
        """Return the numbers of windows and held events."""
        counts = await ask_each(self._redis, lambda pipeline, key: pipeline.zcard(key), (DUE, READY, POSITIONS))
        return Counts(*(count for _, count in counts))

    async def dropped(self) -> dict[str, int]:
        """Return the number of events that the windows of each rule have dropped."""
        found = await self._redis.hgetall(DROPPED)
        return dict(readable(DROPPED, lambda row: (text(row[0]), int(row[1])), sorted(found.items())))

    async def drops(self, rule: str, *, limit: int) -> list[Drop]:
        """Return the last events that the windows of a rule dropped, the newest first."""
        rows: Any = await self._redis.xrevrange(f"{PREFIX}dropped:{rule}", count=limit)
        return list(readable(f"{PREFIX}dropped:{rule}", lambda row: _drop(*row), rows))


def _closed(id_: str, fields: dict[bytes, bytes], rows: Sequence[bytes]) -> Closed:
    rule, key, why = _window(fields)
    with reading(f"{PREFIX}closed:{id_}:events"):
        members = tuple(_member(row) for row in rows)
    return Closed(id=id_, rule=rule, key=key, why=why, members=members)


def _window(fields: Mapping[bytes, bytes]) -> tuple[str, str, Why]:
    rule, _, key = text(fields[b"name"]).partition("\n")
    why = text(fields[b"why"])
    if why not in get_args(Why):
        raise ValueError("not a reason to close a window")
    return rule, key, why  # type: ignore[return-value]


def _member(row: bytes) -> WindowMember:
    kind, at, kept = text(row).split("|", 2)
    int(at)
    known = json.loads(kept)
    identity, position, salt = known["i"], is_position(known["p"]), known["s"]
    if not isinstance(identity, str) or not (salt is None or isinstance(salt, str)):
        raise TypeError("not an event that a window holds")
    return WindowMember(identity=identity, position=position, kind=kind, salt=salt)


def _drop(position: bytes, fields: Mapping[bytes, bytes]) -> Drop:
    return Drop(
        at_ms=int(text(position).partition("-")[0]),
        identity=text(fields[b"e"]),
        why="duplicate" if fields[b"w"] == b"duplicate" else "throttled",
        key=text(fields[b"k"]),
        other=text(fields[b"o"]),
    )


def _how(value: bytes) -> None:
    how = is_object(value)
    kinds, wait = how["kinds"], how["wait"]
    if not isinstance(how["mode"], str) or not isinstance(wait, int | float) or isinstance(wait, bool):
        raise TypeError("not how a window closes")
    if not (isinstance(kinds, list | dict) and all(isinstance(kind, str) for kind in kinds)):
        raise TypeError("not the kinds of a window")


def _ms(seconds: float) -> int:
    return _LONGEST_MS if math.isinf(seconds) else max(1, round(seconds * 1000))


KEYS: Final = (
    Key(OPEN, "hash", "window that holds something, and how it closes", "until it closes", pair(is_text, _how)),
    Key(DUE, "zset", "name of a window that closes", "until it closes", scored()),
    Key(READY, "zset", "id of a closed window", "until what it leads to is handed on", scored(is_number)),
    Key(POSITIONS, "zset", "position of an event that a window gathers", "until it is handed on", scored(is_position)),
    Key(DROPPED, "hash", "number of events that a rule's windows dropped", "for good", pair(is_text, is_number)),
    Key(COUNT, "string", "number of windows that have closed", "for good", is_number),
    Key(PREFIX + "held:*", "list", "event that a window gathers", "until it closes", _member),
    Key(PREFIX + "closed:*", "hash", "closed window", "until what it leads to is handed on", _window, whole=True),
    Key(PREFIX + "closed:*:events", "list", "event of a closed window", "as its window", _member),
    Key(PREFIX + "seen:*", "string", "position of an event that was gathered", "journal.seen_seconds", is_position),
    Key(PREFIX + "dedupe:*", "string", "event that others may repeat", "the rule's dedupe time", is_text),
    Key(PREFIX + "throttle:*", "zset", "event that a throttle let pass", "the rule's throttle time", scored()),
    Key(PREFIX + "first:*", "string", "time of the first event of a debounce", "until it closes", is_number),
    Key(
        PREFIX + "dropped:*",
        "stream",
        "event that a window dropped",
        "journal.seen_seconds",
        lambda fields: _drop(b"0-0", fields),
    ),
)
