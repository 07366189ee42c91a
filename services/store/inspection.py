"""Inspection: what stands under Sluice's keys and is not Sluice's is set aside as a dead letter, not just deleted.

A key of another type than the one that is declared for it is renamed to `QUARANTINE`, as is a record that cannot be
read; its owner then makes its own anew. A single element (of a list, set, stream or hash) is taken out. The dead letter
names the key and has the first bytes; what was renamed stays, whole, until the letter is discarded.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, cast

import structlog
from redis.exceptions import ResponseError

from events.dead_letter import DeadLetter
from events.errors import Backpressure, TransientError
from services.store.connection import EVEN_WHEN_FULL, AsyncRedis, SyncRedis, translated
from services.store.damaged_events import note_damage
from services.store.dead_letters import DEAD, QUARANTINE, DeadLetters, letter_id_of
from services.store.keys import Key, KeyList, is_number, is_well
from services.store.lease import TAKE
from services.store.unreadable import FAULTS, readable
from sluice.display import visible

LOOKED: Final = "sluice:inspection:looked"
WANTED: Final = "sluice:inspection:wanted"
LOOKING: Final = "sluice:inspection:looking"

_LONGEST_LOOK_MS: Final = 60_000

KEPT_BYTES: Final = 4096
"""How much of something unreadable its dead letter keeps."""

MOST_LETTERS: Final = 100
"""So many elements of one key get a letter of their own in one inspection; the rest of them share one."""

_PAGE: Final = 500

# KEYS: key, its new name; ARGV: the type that it should have, or '' to rename it whatever it is. Answers 1 if it went.
_RENAME: Final = """
local found = redis.call('TYPE', KEYS[1])['ok']
if found == 'none' or found == ARGV[1] then return 0 end
redis.call('RENAME', KEYS[1], KEYS[2])
redis.call('PERSIST', KEYS[2])
return 1
"""

# KEYS: key; ARGV: type, element, its value (of a hash). Answers how many went.
_TAKE_OUT: Final = """
if redis.call('TYPE', KEYS[1])['ok'] ~= ARGV[1] then return 0 end
if ARGV[1] == 'list' then return redis.call('LREM', KEYS[1], 1, ARGV[2]) end
if ARGV[1] == 'set' then return redis.call('SREM', KEYS[1], ARGV[2]) end
if ARGV[1] == 'zset' then return redis.call('ZREM', KEYS[1], ARGV[2]) end
if ARGV[1] == 'stream' then return redis.call('XDEL', KEYS[1], ARGV[2]) end
if redis.call('HGET', KEYS[1], ARGV[2]) ~= ARGV[3] then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[2])
"""

# KEYS: stream, its new name, a name for the time between; ARGV: the last position (ms) that is of this world. A stream
# takes no entry at a position below the highest it ever had, so one that has had a higher one is made anew, with its
# groups and what they have in hand, and the old one gets the new name. Answers whether it was.
_BACK_TO_THE_PRESENT: Final = """
local function ms(id) return tonumber(string.match(id, '^%d+')) end
local function named(row)
  local fields = {}
  for i = 1, #row, 2 do fields[row[i]] = row[i + 1] end
  return fields
end
local old, anew = KEYS[1], KEYS[3]
if redis.call('TYPE', old)['ok'] ~= 'stream' then return 0 end
local limit = tonumber(ARGV[1])
if ms(named(redis.call('XINFO', 'STREAM', old))['last-generated-id']) <= limit then return 0 end
redis.call('DEL', anew)
redis.call('XGROUP', 'CREATE', anew, 'made', '0', 'MKSTREAM')
redis.call('XGROUP', 'DESTROY', anew, 'made')
local start, last = '-', '0-0'
repeat
  local rows = redis.call('XRANGE', old, start, string.format('%.0f', limit), 'COUNT', 1000)
  for _, row in ipairs(rows) do
    redis.call('XADD', anew, row[1], unpack(row[2]))
    last = row[1]
  end
  start = '(' .. last
until #rows == 0
for _, row in ipairs(redis.call('XINFO', 'GROUPS', old)) do
  local group = named(row)
  local read = ms(group['last-delivered-id']) > limit and last or group['last-delivered-id']
  local unread = #redis.call('XRANGE', anew, '(' .. read, '+')
  redis.call('XGROUP', 'CREATE', anew, group['name'], read, 'ENTRIESREAD', redis.call('XLEN', anew) - unread)
  local from = '-'
  repeat
    local pending = redis.call('XPENDING', old, group['name'], from, string.format('%.0f', limit), 1000)
    for _, one in ipairs(pending) do
      redis.call('XCLAIM', anew, group['name'], one[2], 0, one[1], 'IDLE', one[3], 'RETRYCOUNT', one[4], 'FORCE')
      from = '(' .. one[1]
    end
  until #pending == 0
end
redis.call('RENAME', old, KEYS[2])
redis.call('RENAME', anew, old)
return 1
"""

_FUTURE_MS: Final = 86_400_000
"""Entries this much later than now were not put there by the server's clock."""

log = structlog.get_logger()


class Looks:
    """One process at a time looks at everything. Raises `TransientError` or `Backpressure`."""

    def __init__(self, redis: AsyncRedis) -> None:
        self._redis = redis
        self._take = redis.register_script(EVEN_WHEN_FULL + TAKE)

    async def last_ms(self) -> int:
        """When the last look at everything began, in milliseconds since the epoch; 0 if that is not known."""
        with translated():
            found: Any = await self._redis.get(LOOKED)
        return next(readable(LOOKED, is_number, [found] if found else []), 0)

    async def wanted_ms(self) -> int:
        """When a process without an inspector of its own asked for one; 0 if none did."""
        with translated():
            found: Any = await self._redis.get(WANTED)
        return next(readable(WANTED, is_number, [found] if found else []), 0)

    async def begin(self) -> bool:
        """Whether it is this process's turn."""
        with translated():
            return bool(await self._take(keys=[LOOKING], args=["1", _LONGEST_LOOK_MS]))

    async def end(self, began_ms: int, *, rest_ms: int) -> None:
        """Let the others know, and look again after a rest at the earliest."""
        with translated():
            await self._redis.set(LOOKED, began_ms)
            await self._redis.pexpire(LOOKING, max(1, rest_ms))


def ask_for_a_look(redis: SyncRedis) -> None:
    """Have the inspector of some role look at everything; if Redis is away, nobody does."""
    with contextlib.suppress(TransientError, Backpressure), translated():
        redis.set(WANTED, time.time_ns() // 1_000_000)


KEYS: Final = (
    Key(WANTED, "string", "time at which a look at everything was asked for", "for good", is_number),
    Key(LOOKED, "string", "time of the last look at everything", "for good", is_number),
    Key(LOOKING, "string", "turn to look at everything", "the look, and a rest after it"),
)


@dataclass(frozen=True, slots=True)
class _Element:
    """``name`` is what takes it out, ``parts`` what its key's check is given, ``raw`` what the letter keeps."""

    name: bytes
    parts: tuple[Any, ...]
    raw: bytes
    value: bytes = b""


class KeyInspection:
    """Looks at keys and sets aside what is not as declared. Raises `TransientError` or `Backpressure`."""

    def __init__(self, redis: AsyncRedis, keys: KeyList) -> None:
        self._redis = redis
        self._keys = keys
        self._letters = DeadLetters(redis)
        self._rename = redis.register_script(EVEN_WHEN_FULL + _RENAME)
        self._take_out = redis.register_script(EVEN_WHEN_FULL + _TAKE_OUT)
        self._back_to_the_present = redis.register_script(EVEN_WHEN_FULL + _BACK_TO_THE_PRESENT)

    async def types(self) -> int:
        """Look at the types of the keys that have one name; answers how many were set aside."""
        names = [key.pattern.encode() for key in self._keys if not key.is_family]
        count = await self._check_types(names)
        for name in names:
            count += await self._check_future(name)
        return count

    async def everything(self) -> int:
        """Look at each key that the list knows, and at what it holds; answers how many things were set aside."""
        count = await self.types()
        for start in ("sluice:", "rq:"):
            cursor = 0
            while True:
                with translated():
                    answer: Any = await self._redis.scan(cursor, match=start + "*", count=_PAGE)
                cursor, names = answer
                count += await self._check_types(names)
                for name in await self._doubtful(names):
                    count += await self._check_contents(name)
                if not cursor:
                    break
        return count

    async def of(self, name: bytes) -> int:
        """Look at one key; answers how many things were set aside."""
        return await self._check_types([name]) + await self._check_contents(name)

    async def _check_types(self, names: list[bytes]) -> int:
        pipeline = self._redis.pipeline(transaction=False)
        for name in names:
            pipeline.type(name)
        with translated():
            found: list[bytes] = await pipeline.execute() if names else []
        count = 0
        wrong = sorted(zip(names, found, strict=True), key=lambda pair: pair[0] != DEAD.encode())
        for name, kind in wrong:  # the index of the letters first: without it none can be kept
            declared = self._keys.of(name)
            if kind != b"none" and declared is not None and declared.kind not in {"any", kind.decode()}:
                count += await self._set_aside(name, kind.decode(), declared)
        return count

    async def _doubtful(self, names: list[bytes]) -> list[bytes]:
        """Without those that are seen to be well in one round trip: strings, records and short lists."""
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
                pipeline.lrange(name, 0, _PAGE)
            elif declared.whole:
                pipeline.hgetall(name)
            else:
                doubtful.append(name)
                continue
            asked.append((name, declared))
        with translated():
            values: list[Any] = await pipeline.execute(raise_on_error=False) if asked else []
        for (name, declared), value in zip(asked, values, strict=True):
            if not is_well(declared, value, page=_PAGE):
                doubtful.append(name)
        return doubtful

    async def _check_contents(self, name: bytes) -> int:
        declared = self._keys.of(name)
        if declared is None:
            return 0
        count = await self._check_future(name)
        if declared.check is None:
            return count
        if declared.whole or declared.kind == "string":
            return await self._check_whole(name, declared)
        while found := await self._check_elements(name, declared):
            count += found
            if declared.kind != "list":  # whose elements move up while it is read
                break
        return count

    async def _check_elements(self, name: bytes, declared: Key) -> int:
        check = cast(Callable[..., object], declared.check)
        count = 0
        async for element in _elements(self._redis, name, declared.kind):
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
        """Entries of a stream at positions that its clock has not come to, after which it would take no others."""
        declared = self._keys.of(name)
        if declared is None or declared.kind != "stream":
            return 0
        limit = int(time.time() * 1000) + _FUTURE_MS
        try:
            with translated():
                info: Any = await self._redis.xinfo_stream(name)
        except ResponseError:  # there is no such key
            return 0
        if int(info["last-generated-id"].partition(b"-")[0]) <= limit:
            return 0
        with translated():
            rows: Any = await self._redis.xrange(name, min=f"({limit}", count=MOST_LETTERS)
        raw = b"\n".join(entry + b" " + _raw(fields) for entry, fields in rows)
        reason = f"{_shown(name)} had entries in the future ({info['last-generated-id'].decode()}), and takes no others"
        letter_id = letter_id_of("stored", _shown(name), hashlib.sha256(raw).hexdigest())
        target = QUARANTINE + letter_id
        said = f"{reason}; it was made anew without them, and the old one is kept as {target}"
        await self._keep(name, "unreadable", said, raw, letter_id=letter_id)
        with translated():
            names = [name, target, f"{target}:anew"]
            return int(await self._back_to_the_present(keys=names, args=[limit]))  # type: ignore[arg-type]

    async def _check_whole(self, name: bytes, declared: Key) -> int:
        check = cast(Callable[[Any], object], declared.check)
        with translated():
            value: Any = await (self._redis.get(name) if declared.kind == "string" else self._redis.hgetall(name))
        if value is None or value == {}:
            return 0
        try:
            check(value)
        except FAULTS as error:
            reason = f"what {_shown(name)} holds is no {declared.holds} ({type(error).__name__})"
            return await self._move(name, "", "unreadable", reason, _raw(value))
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
        with translated():
            moved = bool(await self._rename(keys=[name, target], args=[wanted]))
        if moved and name == DEAD.encode():
            await self._keep(name, code, f"{reason}; it is kept as {target}", raw, letter_id=letter_id)
        return int(moved)

    async def _take(self, name: bytes, declared: Key, element: _Element, error: Exception, *, lettered: bool) -> None:
        if lettered:
            reason = f"an element of {_shown(name)} is no {declared.holds} ({type(error).__name__}); it was taken out"
            await self._keep(name, "unreadable", reason, element.raw, element.name)
        await note_damage(self._redis, name)
        with translated():
            await self._take_out(keys=[name], args=[declared.kind, element.name, element.value])

    async def _keep(
        self, name: bytes, code: str, reason: str, raw: bytes, *parts: object, letter_id: str | None = None
    ) -> None:
        size = f"; only its first {KEPT_BYTES} bytes are in this letter" if len(raw) > KEPT_BYTES else ""
        now = datetime.now(UTC)
        letter = DeadLetter(
            id=letter_id or letter_id_of("stored", _shown(name), repr(parts), hashlib.sha256(raw).hexdigest()),
            kind="stored",
            code=code,
            reason=visible(reason + size, 2000),
            source=f"redis:{visible(_shown(name), 200)}",
            raw=raw[:KEPT_BYTES],
            first_failed=now,
            last_failed=now,
        )
        await self._letters.add(letter)
        log.warning("something in redis cannot be read and was set aside", key=letter.source, reason=letter.reason)

    async def _sample(self, name: bytes, kind: str) -> bytes:
        """The first elements of a key of any type."""
        with translated():
            if kind == "string":
                start: Any = await self._redis.getrange(name, 0, KEPT_BYTES)
                return bytes(start)
        rows: list[bytes] = []
        async for element in _elements(self._redis, name, kind):
            rows.append(element.raw)
            if sum(map(len, rows)) > KEPT_BYTES:
                break
        return b"\n".join(rows)


async def _elements(redis: AsyncRedis, name: bytes, kind: str) -> AsyncIterator[_Element]:
    """Every element of a key, in pages; a key that goes meanwhile has none."""
    if kind not in _PAGES:
        return  # a type that only a module of the server knows
    async for page in _PAGES[kind](redis, name):
        for element in page:
            yield element


async def _of_list(redis: AsyncRedis, name: bytes) -> AsyncIterator[list[_Element]]:
    start = 0
    while True:
        with translated():
            rows: Any = await cast(Awaitable[Any], redis.lrange(name, start, start + _PAGE - 1))
        yield [_Element(row, (row,), row) for row in rows]
        if len(rows) < _PAGE:
            return
        start += _PAGE


async def _of_set(redis: AsyncRedis, name: bytes) -> AsyncIterator[list[_Element]]:
    cursor = 0
    while True:
        with translated():
            answer: Any = await redis.sscan(name, cursor, count=_PAGE)
        cursor, rows = answer
        yield [_Element(row, (row,), row) for row in rows]
        if not cursor:
            return


async def _of_zset(redis: AsyncRedis, name: bytes) -> AsyncIterator[list[_Element]]:
    cursor = 0
    while True:
        with translated():
            answer: Any = await redis.zscan(name, cursor, count=_PAGE)
        cursor, rows = answer
        yield [_Element(row, (row, score), row + f" {score}".encode()) for row, score in rows]
        if not cursor:
            return


async def _of_hash(redis: AsyncRedis, name: bytes) -> AsyncIterator[list[_Element]]:
    cursor = 0
    while True:
        with translated():
            answer: Any = await redis.hscan(name, cursor, count=_PAGE)
        cursor, rows = answer
        yield [_Element(field, (field, value), field + b"\n" + value, value) for field, value in rows.items()]
        if not cursor:
            return


async def _of_stream(redis: AsyncRedis, name: bytes) -> AsyncIterator[list[_Element]]:
    start = "-"
    while True:
        with translated():
            rows: Any = await redis.xrange(name, min=start, count=_PAGE)
        yield [_Element(entry, (fields,), _raw(fields)) for entry, fields in rows]
        if len(rows) < _PAGE:
            return
        start = f"({rows[-1][0].decode()}"


async def _of_string(redis: AsyncRedis, name: bytes) -> AsyncIterator[list[_Element]]:
    with translated():
        value: Any = await redis.get(name)
    yield [_Element(value, (value,), value)] if value is not None else []


_PAGES: Final[Mapping[str, Callable[[AsyncRedis, bytes], AsyncIterator[list[_Element]]]]] = {
    "list": _of_list,
    "set": _of_set,
    "zset": _of_zset,
    "hash": _of_hash,
    "stream": _of_stream,
    "string": _of_string,
}


def _raw(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    return json.dumps({_text(field): _text(raw) for field, raw in value.items()}, ensure_ascii=False).encode()


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(raw).decode()


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
