"""Garbage under every key that Sluice uses: what a neighbour in Redis with a broken program, or a bad mind, writes."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator, Sequence

from redis.exceptions import ResponseError

from services.store.connection import AsyncRedis
from services.store.keys import Key, KeyList
from services.store.unreadable import UnreadableKey

TYPES = ("string", "hash", "list", "set", "zset", "stream")

VALUES: Sequence[bytes] = (
    b"",
    b"evil",
    b"\xff\xfe\x00",
    b"null",
    b"{}",
    b"[]",
    b"{",
    b"1",
    b"-1",
    b"9" * 400,
    b"nan",
    b'{"a":{"b":[1,2]}}',
    b'["v","x",{},[],5,"y"]',
    b'{"only":[1],"salt":{}}',
    b'"\\ud800"',
    b"[" * 60_000 + b"]" * 60_000,
    b"x" * 100_000,
    zlib.compress(b"[" + b"0," * 20_000_000 + b"0]"),
    "\x1b[2J\u202e".encode(),
    b"99999999999999999999-1",
    b"evil x y",
    b"+{",
    b"007",
)

FIELDS: Sequence[bytes] = (
    b"d", b"event", b"received", b"replay", b"finished", b"id", b"status", b"p", b"s", b"e", b"w", b"k", b"o", b"log",
    b"signal", b"place", b"name", b"why", b"l", b"n", b"f", b"t", b"c", b"r", b"version", b"!matched", b"data", b"x",
)  # fmt: skip
"""The names that some part gives to a field, and one that none does."""

SCORES: Sequence[float] = (float("-inf"), -1, 0, 1, 1e15, 1e300, float("inf"))


async def write(redis: AsyncRedis, name: bytes, kind: str, rng: random.Random) -> None:
    """Put an element that is none under the key, which becomes one of ``kind`` if it is not there."""
    value = rng.choice(VALUES)
    try:
        match kind:
            case "string":
                await redis.set(name, value)
            case "hash":
                await redis.hset(name, mapping={rng.choice(FIELDS): value, rng.choice(VALUES): rng.choice(VALUES)})
            case "list":
                await rng.choice([redis.rpush, redis.lpush])(name, value)
            case "set":
                await redis.sadd(name, value)
            case "zset":
                await redis.zadd(name, {value: rng.choice(SCORES)})
            case _:
                await _to_stream(redis, name, value, rng)
    except (ResponseError, UnreadableKey):
        return  # it is of another type, or its positions are used up: that is garbage enough


async def _to_stream(redis: AsyncRedis, name: bytes, value: bytes, rng: random.Random) -> None:
    position = "18446744073709551615-18446744073709551615" if rng.random() < 0.05 else "*"
    await redis.xadd(name, {rng.choice(FIELDS): value, rng.choice(FIELDS): rng.choice(VALUES)}, id=position)


def names_of(key: Key, rng: random.Random, parts: Sequence[str]) -> Iterator[bytes]:
    """Names that the key may have: for a family, with each of ``parts`` and with bytes that are no text."""
    if not key.is_family:
        yield key.pattern.encode()
        return
    for part in (*parts, "evil\x1b[31m\n:x"):
        yield key.pattern.replace("*", part, 1).replace("*", rng.choice(parts)).encode()
    yield key.pattern.encode().replace(b"*", b"\xff\xfe")


async def misplaced(redis: AsyncRedis, keys: KeyList) -> list[str]:
    """The keys whose type is not the declared one, and those that nobody has declared."""
    found = []
    async for name in redis.scan_iter(count=1000):
        if not name.startswith((b"sluice:", b"rq:")) or name == b"rq:suspended":
            continue
        declared, kind = keys.of(name), (await redis.type(name)).decode()
        if kind != "none" and (declared is None or declared.kind not in {"any", kind}):  # one that has gone meanwhile
            found.append(f"{name!r} is a {kind}, declared as {declared.kind if declared else 'nothing'}")
    return found
