"""The elements of a key, whatever its type and size, as its check and its letter need them."""

from __future__ import annotations

import pytest

from services.store.connection import AsyncRedis
from services.store.inspection.elements import PAGE, Element, elements, raw_of

NAME = b"test:key"


async def _all(redis: AsyncRedis, kind: str) -> list[Element]:
    return [one async for one in elements(redis, NAME, kind)]


async def test_each_type_gives_what_its_check_takes(redis: AsyncRedis) -> None:
    await redis.set(NAME, b"\xff")
    assert await _all(redis, "string") == [Element(b"\xff", (b"\xff",), b"\xff")]
    await redis.delete(NAME)
    await redis.rpush(NAME, "a", "b")
    assert [one.parts for one in await _all(redis, "list")] == [(b"a",), (b"b",)]
    await redis.delete(NAME)
    await redis.sadd(NAME, "a")
    assert [one.parts for one in await _all(redis, "set")] == [(b"a",)]
    await redis.delete(NAME)
    await redis.zadd(NAME, {"a": 1.5})
    assert await _all(redis, "zset") == [Element(b"a", (b"a", 1.5), b"a 1.5")]
    await redis.delete(NAME)
    await redis.hset(NAME, "f", "v")
    assert await _all(redis, "hash") == [Element(b"f", (b"f", b"v"), b"f\nv", b"v")]
    await redis.delete(NAME)
    entry = await redis.xadd(NAME, {"f": "v"})
    assert await _all(redis, "stream") == [Element(entry, ({b"f": b"v"},), b'{"f": "v"}')]


@pytest.mark.parametrize("count", [PAGE - 1, PAGE, PAGE + 1, 2 * PAGE])
@pytest.mark.parametrize("kind", ["list", "set", "zset", "hash", "stream"])
async def test_every_element_comes_once_whatever_the_size(redis: AsyncRedis, kind: str, count: int) -> None:
    names = [f"element-{number}" for number in range(count)]
    pipeline = redis.pipeline(transaction=False)
    for number, name in enumerate(names):
        match kind:
            case "list":
                pipeline.rpush(NAME, name)
            case "set":
                pipeline.sadd(NAME, name)
            case "zset":
                pipeline.zadd(NAME, {name: number})
            case "hash":
                pipeline.hset(NAME, name, name)
            case _:
                pipeline.xadd(NAME, {"n": name})
    await pipeline.execute()
    found = [one.parts[0] for one in await _all(redis, kind)]
    told = sorted(one[b"n"] if kind == "stream" else one for one in found)
    assert told == sorted(name.encode() for name in names)


@pytest.mark.parametrize("kind", ["string", "list", "set", "zset", "hash", "stream", "ReJSON-RL"])
async def test_a_key_that_is_gone_or_of_an_unknown_type_has_none(redis: AsyncRedis, kind: str) -> None:
    assert await _all(redis, kind) == []


def test_the_fields_of_an_entry_are_kept_whatever_their_bytes() -> None:
    assert raw_of({b"f": b"\xff", b"g": "ü".encode()}) == '{"f": "base64:/w==", "g": "ü"}'.encode()
    assert raw_of(b"\xff") == b"\xff"
