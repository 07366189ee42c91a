"""Inspection: foreign data under Sluice's keys is moved to quarantine with a dead letter, not deleted.

A key of another type than the declared one is renamed to `QUARANTINE`, as is an unreadable record; its owner then
creates a new one. A single element (of a list, set, stream or hash) is removed. The dead letter names the key and has
the first bytes; renamed data stays unchanged until the letter is discarded.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import Any, Final, cast

import structlog
from redis.exceptions import ResponseError

from events.dead_letter import DeadLetter
from services.store.connection import AsyncRedis, ask_each
from services.store.dead_letters import KEPT_BYTES, QUARANTINE, DeadLetters, letter_id_of
from services.store.inspection.damaged_events import note_damage
from services.store.inspection.elements import PAGE, Element, elements, raw_of
from services.store.keys import DEAD, Key, KeyList, is_well
from services.store.scripts import Script
from services.store.unreadable import FAULTS
from sluice.display import visible

MOST_LETTERS: Final = 100
"""Number of elements of one key that get a letter of their own in one inspection; the others share one."""


_RENAME: Final = Script("rename_key")
_TAKE_OUT: Final = Script("take_out")
_BACK_TO_THE_PRESENT: Final = Script("back_to_the_present")

_FUTURE_MS: Final = 86_400_000
"""Entries whose time is this much later than now did not get it from the server's clock."""


log = structlog.get_logger()


class KeyInspection:
    """Checks keys and quarantines data that is not as declared.

    Raises `TransientError` or `Backpressure`. It touches no key that ``keys`` does not declare, because its user of
    Redis may lack the right.
    """

    def __init__(self, redis: AsyncRedis, keys: KeyList) -> None:
        self._redis = redis
        self._keys = keys
        self._letters = DeadLetters(redis)

    async def types(self) -> int:
        """Check the types of keys with a fixed name; return the number of quarantined ones."""
        names = [key.pattern.encode() for key in self._keys if not key.is_family]
        count = await self._check_types(names)
        for name in names:
            count += await self._check_future(name)
        return count

    async def everything(self) -> int:
        """Check each declared key and its content; return the number of quarantined keys and elements."""
        count = await self.types()
        for start in ("sluice:", "rq:"):
            cursor = 0
            while True:
                answer: Any = await self._redis.scan(cursor, match=start + "*", count=PAGE)
                cursor, names = answer
                count += await self._check_types(names)
                for name in await self._doubtful(names):
                    count += await self._check_contents(name)
                if not cursor:
                    break
        return count

    async def of(self, name: bytes) -> int:
        """Check one key; return the number of quarantined keys and elements."""
        return await self._check_types([name]) + await self._check_contents(name)

    async def _check_types(self, names: list[bytes]) -> int:
        known = [name for name in names if self._keys.of(name) is not None]
        found = await ask_each(self._redis, lambda pipeline, name: pipeline.type(name), known)
        count = 0
        # The index of the letters is first: without it no letter can be kept.
        for name, kind in sorted(found, key=lambda pair: pair[0] != DEAD.encode()):
            declared = self._keys.of(name)
            if kind != b"none" and declared is not None and declared.kind not in {"any", kind.decode()}:
                count += await self._set_aside(name, kind.decode(), declared)
        return count

    async def _doubtful(self, names: list[bytes]) -> list[bytes]:
        """Return the keys that need a closer check; checks strings, records and short lists, in one round trip."""
        pipeline = self._redis.pipeline(transaction=False)
        asked: list[tuple[bytes, Key]] = []
        doubtful: list[bytes] = []
        for name in names:
            declared = self._keys.of(name)
            if declared is None or (declared.check is None and declared.kind != "stream"):
                continue
            if declared.kind == "string":
                pipeline.get(name)
            elif declared.kind == "list":
                pipeline.lrange(name, 0, PAGE)
            elif declared.whole:
                pipeline.hgetall(name)
            else:
                doubtful.append(name)
                continue
            asked.append((name, declared))
        values: list[Any] = await pipeline.execute(raise_on_error=False) if asked else []
        for (name, declared), value in zip(asked, values, strict=True):
            if not is_well(declared, value, page=PAGE):
                doubtful.append(name)
        return doubtful

    async def _check_contents(self, name: bytes) -> int:
        """Check what a key holds, whole or element by element; return the number of parts put in quarantine."""
        declared = self._keys.of(name)
        if declared is None:
            return 0
        count = await self._check_future(name)
        if declared.check is None:
            return count
        if declared.whole or declared.kind == "string":
            return await self._check_whole(name, declared)
        while found := await self._checkelements(name, declared):
            count += found
            if declared.kind != "list":  # a list's elements move up while it is read
                break
        return count

    async def _checkelements(self, name: bytes, declared: Key) -> int:
        check = cast(Callable[..., object], declared.check)
        count = 0
        async for element in elements(self._redis, name, declared.kind):
            try:
                check(*element.parts)
            except FAULTS as error:
                await self._take(name, declared, element, error, lettered=count < MOST_LETTERS)
                count += 1
        if count > MOST_LETTERS:
            more = f"{count - MOST_LETTERS} more elements of {_shown(name)} cannot be read and were taken out"
            await self._keep(name, "unreadable", more, b"", count - MOST_LETTERS)
        return count

    async def _check_future(self, name: bytes) -> int:
        """Remove entries of a stream at positions in the future, after which it would accept no others."""
        declared = self._keys.of(name)
        if declared is None or declared.kind != "stream":
            return 0
        limit = int(time.time() * 1000) + _FUTURE_MS
        try:
            info: Any = await self._redis.xinfo_stream(name)
        except ResponseError:  # there is no such key
            return 0
        if int(info["last-generated-id"].partition(b"-")[0]) <= limit:
            return 0
        rows: Any = await self._redis.xrange(name, min=f"({limit}", count=MOST_LETTERS)
        raw = b"\n".join(entry + b" " + raw_of(fields) for entry, fields in rows)
        reason = f"{_shown(name)} had entries in the future ({info['last-generated-id'].decode()}), and takes no others"
        letter_id = letter_id_of("stored", _shown(name), hashlib.sha256(raw).hexdigest())
        target = QUARANTINE + letter_id
        said = f"{reason}; it was made anew without them, and the old one is kept as {target}"
        await self._keep(name, "unreadable", said, raw, letter_id=letter_id)
        answer = await _BACK_TO_THE_PRESENT(
            self._redis, stream=name, kept_as=target, anew=f"{target}:anew", limit_ms=limit
        )
        return int(answer)

    async def _check_whole(self, name: bytes, declared: Key) -> int:
        check = cast(Callable[[Any], object], declared.check)
        value: Any = await (self._redis.get(name) if declared.kind == "string" else self._redis.hgetall(name))
        if value is None or value == {}:
            return 0
        try:
            check(value)
        except FAULTS as error:
            reason = f"what {_shown(name)} holds is no {declared.holds} ({type(error).__name__})"
            return await self._move(name, "", "unreadable", reason, raw_of(value))
        return 0

    async def _set_aside(self, name: bytes, kind: str, declared: Key) -> int:
        reason = f"{_shown(name)} was a {kind} instead of a {declared.kind} ({declared.holds})"
        return await self._move(name, declared.kind, "wrong-type", reason, await self._sample(name, kind))

    async def _move(self, name: bytes, wanted: str, code: str, reason: str, raw: bytes) -> int:
        letter_id = letter_id_of("stored", _shown(name), hashlib.sha256(raw).hexdigest())
        target = QUARANTINE + letter_id
        if name != DEAD.encode():
            await self._keep(name, code, f"{reason}; it is kept as {target}", raw, letter_id=letter_id)
        await note_damage(self._redis, name)  # before it is gone
        moved = bool(await _RENAME(self._redis, key=name, new_name=target, wanted=wanted))
        if moved and name == DEAD.encode():
            await self._keep(name, code, f"{reason}; it is kept as {target}", raw, letter_id=letter_id)
        return int(moved)

    async def _take(self, name: bytes, declared: Key, element: Element, error: Exception, *, lettered: bool) -> None:
        if lettered:
            reason = f"an element of {_shown(name)} is no {declared.holds} ({type(error).__name__}); it was taken out"
            await self._keep(name, "unreadable", reason, element.raw, element.name)
        await note_damage(self._redis, name)
        await _TAKE_OUT(self._redis, key=name, kind=declared.kind, element=element.name, value=element.value)

    async def _keep(
        self, name: bytes, code: str, reason: str, raw: bytes, *parts: object, letter_id: str | None = None
    ) -> None:
        """Keep unreadable data as a dead letter; its id follows from the data, so that a repetition is one letter."""
        size = f"; only its first {KEPT_BYTES} bytes are in this letter" if len(raw) > KEPT_BYTES else ""
        letter = DeadLetter(
            id=letter_id or letter_id_of("stored", _shown(name), repr(parts), hashlib.sha256(raw).hexdigest()),
            kind="stored",
            code=code,
            reason=visible(reason + size, 2000),
            source=f"redis:{visible(_shown(name), 200)}",
            raw=raw[:KEPT_BYTES],
        )
        await self._letters.add(letter)
        log.warning("unreadable data in redis was moved to quarantine", key=letter.source, reason=letter.reason)

    async def _sample(self, name: bytes, kind: str) -> bytes:
        """Return the first elements of a key of any type."""
        if kind == "string":
            start: Any = await self._redis.getrange(name, 0, KEPT_BYTES)
            return bytes(start)
        rows: list[bytes] = []
        async for element in elements(self._redis, name, kind):
            rows.append(element.raw)
            if sum(map(len, rows)) > KEPT_BYTES:
                break
        return b"\n".join(rows)


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
