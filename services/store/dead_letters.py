"""Dead letters: messages and events that could not be handled, kept unchanged until replayed or discarded."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from events.dead_letter import DeadLetter
from events.event import Event
from events.glob import Globs
from events.identity import id_of
from events.short_ids import LEAST, the_one
from services.store.connection import AsyncRedis, SyncRedis, ask_each, text
from services.store.events.known_events import escaped
from services.store.keys import DEAD, Key, scored
from services.store.scripts import EVEN_WHEN_FULL, Script
from services.store.unreadable import readable, readable_one, reading

LETTER: Final = "sluice:dead:"
"""Prefix of a letter's hash: ``l`` the letter as it came, ``n`` attempts, ``f`` first and ``t`` last failure, ``c``
code, ``r`` reason. A letter that is replayed leaves ``n`` and ``f`` behind for a while, in case it comes back."""

QUARANTINE: Final = "sluice:quarantine:"
"""Prefix of unreadable data that was renamed; the id of its letter follows."""

KEPT_BYTES: Final = 4096
"""Number of bytes of unreadable data that its letter keeps."""

_CHUNK: Final = 500
_REPLAYED_SECONDS: Final = 7 * 86_400

_ADD: Final = Script("add_letter")
_ADD_WHEN_FULL: Final = Script("add_letter", flags=EVEN_WHEN_FULL)
_REPLAYED: Final = Script("letter_replayed")


@dataclass(frozen=True, slots=True)
class LetterQuery:
    """Which letters; every criterion that is given must hold. ``source`` is a glob."""

    kind: str | None = None
    code: str | None = None
    rule: str | None = None
    source: str | None = None
    event_id: str | None = None
    since: float | None = None
    """Seconds since the epoch, by the last failure; ``until`` is not included."""
    until: float | None = None

    before: tuple[int, str] | None = None
    """Time (ms) and id of a letter: only letters after it in the listing, for the next page."""

    def matches(self, letter: DeadLetter) -> bool:
        """Whether the letter is one of them."""
        return (
            self.kind in {None, letter.kind}
            and self.code in {None, letter.code}
            and self.rule in {None, letter.rule}
            and self.event_id in {None, letter.event_id}
            and (self.source is None or bool(Globs((self.source,)).matches(letter.source)))
        )


class DeadLetters:
    """The letters; they stay until they are taken away. Raises `TransientError` or `Backpressure`."""

    def __init__(self, redis: AsyncRedis) -> None:
        self._redis = redis

    async def add(self, letter: DeadLetter) -> None:
        """Keep the letter; a second one with the same id counts as a further attempt.

        A letter about an accepted event is kept even when Redis is full.
        """
        add = _ADD_WHEN_FULL if letter.kind in {"event", "stored"} else _ADD
        await add(self._redis, **_values(letter))
        _count(letter)

    async def bury(self, letter: DeadLetter) -> None:
        """`add` the letter of an event, and log it."""
        import structlog

        await self.add(letter)
        said = {"rule": letter.rule, "code": letter.code, "reason": letter.reason}
        structlog.get_logger().warning(
            "an event became a dead letter", event_id=letter.event_id, source=letter.source, **said
        )

    async def get(self, letter_id: str) -> DeadLetter | None:
        """The letter, or None."""
        fields = await self._redis.hgetall(LETTER + letter_id)
        return readable_one(LETTER + letter_id, _letter, fields)

    async def choose(self, id_: str) -> str:
        """Return the id of the letter with this id or beginning of an id.

        Raises `NotFound`, and `Refused` (``ambiguous``) if several letters match.
        """
        if await self._redis.zscore(DEAD, id_) is not None:
            return id_
        pattern = escaped(id_) + "*"
        found = [one async for one, _ in self._redis.zscan_iter(DEAD, match=pattern)] if len(id_) >= LEAST else []
        return the_one({text(one) for one in found}, id_, what="dead letter")

    async def search(self, query: LetterQuery, *, limit: int) -> list[DeadLetter]:
        """The letters that failed last, the newest first."""
        found: list[DeadLetter] = []
        async for letter in self.walk(query):
            found.append(letter)
            if len(found) >= limit:
                break
        return found

    async def walk(self, query: LetterQuery) -> AsyncIterator[DeadLetter]:
        """Yield every letter that matches ``query``, the newest first, as of the beginning of the walk."""
        low = "-inf" if query.since is None else int(query.since * 1000)
        high = "+inf" if query.until is None else f"({int(query.until * 1000)}"
        if query.before is not None:
            high = str(query.before[0])
        pairs: Any = await self._redis.zrevrangebyscore(DEAD, high, low, withscores=True)
        ids: list[Any] = [
            id_
            for id_, score in readable(DEAD, _scored, pairs)
            if query.before is None or (score, id_) < (query.before[0], query.before[1].encode())
        ]
        for start in range(0, len(ids), _CHUNK):
            for letter in await self._read(list(readable(DEAD, text, ids[start : start + _CHUNK]))):
                if query.matches(letter):
                    yield letter

    async def failed_since(
        self, failed_ms: int, *, known: Mapping[str, int] | None = None, limit: int, most: int
    ) -> tuple[int, list[tuple[int, DeadLetter]]]:
        """The next letters whose last failure is at or after that time, oldest first.

        Each with its time in milliseconds since the epoch, and without those whose time is the ``known`` one. Of more
        than ``most`` the oldest are left out; how many, is returned before them.
        """
        known = known or {}
        skipped = 0
        count = int(await self._redis.zcount(DEAD, failed_ms, "+inf")) - len(known)
        if count > most:
            oldest = next(iter(await self._redis.zrevrange(DEAD, most - 1, most - 1, withscores=True)))[1]
            with reading(DEAD):
                skipped, failed_ms = count - most, int(oldest)
        rows: list[Any] = await self._redis.zrangebyscore(
            DEAD, failed_ms, "+inf", start=0, num=limit + len(known), withscores=True
        )
        times = dict(readable(DEAD, lambda row: (text(row[0]), int(row[1])), rows))
        times = {id_: score for id_, score in times.items() if known.get(id_) != score}
        found = await self._read(list(times)[:limit])
        return skipped, [(times[letter.id], letter) for letter in found]

    async def discard(self, letter_ids: Sequence[str]) -> int:
        """Delete letters; return how many existed."""
        if not letter_ids:
            return 0
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.zrem(DEAD, *letter_ids)
        pipeline.unlink(*(LETTER + letter_id for letter_id in letter_ids))
        pipeline.unlink(*(QUARANTINE + letter_id for letter_id in letter_ids))
        return int((await pipeline.execute())[0])

    async def expire(self, before: float) -> int:
        """Discard letters that failed last before then (seconds since the epoch); returns how many."""
        gone = 0
        while True:
            found: list[Any] = await self._redis.zrangebyscore(
                DEAD, "-inf", f"({int(before * 1000)}", start=0, num=_CHUNK
            )
            if not found or not (count := await self.discard(list(readable(DEAD, text, found)))):
                return gone
            gone += count

    async def replayed(self, letter: DeadLetter) -> None:
        """Delete a replayed letter; if it fails again, its attempts and first failure are still known.

        If it has failed again before this call, it stays.
        """
        await _REPLAYED(
            self._redis,
            letters=DEAD,
            record=LETTER + letter.id,
            id=letter.id,
            last_failed=letter.last_failed.isoformat(),
            memory_seconds=_REPLAYED_SECONDS,
        )

    async def counts(self, *, most: int = 2000) -> dict[str, int]:
        """Return the number of letters by code; those older than the newest ``most`` count as ``other``."""
        ids: list[Any] = await self._redis.zrevrange(DEAD, 0, most - 1)
        number = int(await self._redis.zcard(DEAD))
        pipeline = self._redis.pipeline(transaction=False)
        for letter_id in ids:
            pipeline.hget(LETTER + text(letter_id), "c")
        codes = await pipeline.execute(raise_on_error=False) if ids else []
        found = Counter(text(code) if isinstance(code, bytes) else "other" for code in codes)
        return dict(found + Counter(other=max(0, number - len(ids))))

    async def count(self) -> int:
        """Return the number of letters."""
        return int(await self._redis.zcard(DEAD))

    async def _read(self, ids: Sequence[str]) -> list[DeadLetter]:
        rows = await ask_each(self._redis, lambda pipeline, id_: pipeline.hgetall(LETTER + id_), ids)
        found = readable(lambda row: LETTER + row[0], lambda row: _letter(row[1]), rows)
        return [letter for letter in found if letter is not None]


def keep(redis: SyncRedis, letter: DeadLetter) -> None:
    """`DeadLetters.add` on a blocking connection; raises Redis' own errors, as RQ does, which calls it."""
    _ADD(redis, **_values(letter))
    _count(letter)


def _count(letter: DeadLetter) -> None:
    from services.common import metrics  # commands that only read letters do without it, and without structlog

    metrics.letters.labels(letter.kind, letter.code).inc()


def letter_id_of(*parts: str) -> str:
    """The id of a letter about one thing, so that the same failure twice is one letter with two attempts."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=10).hexdigest()


def event_letter(event: Event, *, rule: str | None, code: str, reason: str, attempts: int = 1) -> DeadLetter:
    """The letter for an event that ``rule`` could not act on."""
    return lost_event_letter(
        event.identity, event.to_json(), source=event.source, rule=rule, code=code, reason=reason, attempts=attempts
    )


def lost_event_letter(
    identity: str, raw: bytes, *, source: str, rule: str | None, code: str, reason: str, attempts: int = 1
) -> DeadLetter:
    """`event_letter` for an event that the journal no longer holds; ``raw`` is its remaining data."""
    return DeadLetter(
        id=letter_id_of("event", identity, rule or ""),
        kind="event",
        code=code,
        reason=reason,
        source=source,
        raw=raw,
        event_id=id_of(identity),
        identity=identity,
        rule=rule,
        attempts=attempts,
    )


def _values(letter: DeadLetter) -> dict[str, str | int]:
    return {
        "letters": DEAD,
        "record": LETTER + letter.id,
        "id": letter.id,
        "letter": letter.model_dump_json(),
        "code": letter.code,
        "reason": letter.reason,
        "last_failed": letter.last_failed.isoformat(),
        "last_failed_ms": int(letter.last_failed.timestamp() * 1000),
        "first_failed": letter.first_failed.isoformat(),
    }


def _letter(fields: dict[Any, Any]) -> DeadLetter | None:
    if b"l" not in fields:
        return None
    letter = DeadLetter.model_validate_json(fields[b"l"])
    return letter.model_copy(
        update={
            "code": text(fields[b"c"]),
            "reason": text(fields[b"r"]),
            "attempts": letter.attempts + int(fields[b"n"]) - 1,
            "first_failed": datetime.fromisoformat(text(fields[b"f"])),
            "last_failed": datetime.fromisoformat(text(fields[b"t"])),
        }
    )


def _scored(row: tuple[bytes, float]) -> tuple[bytes, int]:
    return row[0], int(row[1])


def _is_letter(fields: dict[Any, Any]) -> None:
    """Raise unless it is a letter, or the remainder of a replayed one."""
    _letter(fields)
    int(fields[b"n"])
    datetime.fromisoformat(text(fields[b"f"]))


KEYS: Final = (
    Key(DEAD, "zset", "id of a dead letter", "until it is discarded or replayed", scored()),
    Key(LETTER + "*", "hash", "dead letter", "until it is discarded; a week after its replay", _is_letter, whole=True),
    Key(QUARANTINE + "*", "any", "key that could not be read", "until its letter is discarded"),
)
