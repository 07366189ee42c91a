"""A consumer group on a real Valkey: read, acknowledged, claimed, made anew, and rid of those that are gone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from redis.exceptions import ResponseError

from services.store.connection import AsyncRedis
from services.store.consumer_group import ConsumerGroup, Entry
from tests.support.waiting import eventually

STREAM, GROUP = "test:stream", "readers"


def group(redis: AsyncRedis, consumer: str = "one", **times: float) -> ConsumerGroup:
    times = {"claim_idle_seconds": 0.0, **times}
    return ConsumerGroup(redis, STREAM, GROUP, consumer=consumer, **times)


async def add(redis: AsyncRedis, *values: str) -> list[bytes]:
    return [await redis.xadd(STREAM, {"v": value}) for value in values]


def values(entries: Sequence[Entry]) -> list[str]:
    return [fields[b"v"].decode() for _, fields in entries]


async def pending(redis: AsyncRedis) -> int:
    return int((await redis.xpending(STREAM, GROUP))["pending"])


async def test_the_group_is_made_where_it_is_missing_and_begins_with_the_first_entry(redis: AsyncRedis) -> None:
    await add(redis, "a", "b")
    assert values(await group(redis).read(count=9)) == ["a", "b"]
    await redis.xgroup_destroy(STREAM, GROUP)
    assert await group(redis).claim(count=9) == []
    assert values(await group(redis).read(count=1)) == ["a"]
    await group(redis).join()
    await redis.delete(STREAM)
    assert await group(redis).read(count=1, block_seconds=0.01) == []


async def test_a_key_of_another_type_is_not_taken_for_a_missing_group(redis: AsyncRedis) -> None:
    await redis.set(STREAM, "x")
    with pytest.raises(Exception, match="WRONGTYPE"):
        await group(redis).read(count=1)


async def test_each_entry_is_given_to_one_consumer_until_it_is_acknowledged(redis: AsyncRedis) -> None:
    first, second = group(redis, "one"), group(redis, "two")
    await add(redis, "a", "b", "c")
    given = await first.read(count=2)
    assert (values(given), values(await second.read(count=2))) == (["a", "b"], ["c"])
    assert values(await first.own(count=9)) == ["a", "b"]
    assert await first.acknowledge([position for position, _ in given]) == 2
    assert await first.acknowledge([position for position, _ in given]) == 0
    assert await first.acknowledge([]) == 0
    assert await first.own(count=9) == []
    assert await pending(redis) == 1


async def test_acknowledged_entries_can_be_deleted_and_the_next_ones_come_along(redis: AsyncRedis) -> None:
    readers = group(redis)
    await add(redis, "a", "b", "c")
    (entry,) = await readers.read(count=1)
    assert values(await readers.acknowledge_and_read([entry[0]], count=1, delete=True)) == ["b"]
    assert await redis.xlen(STREAM) == 2
    assert await readers.acknowledge([(await readers.own(count=1))[0][0]]) == 1
    assert await redis.xlen(STREAM) == 2


async def test_what_lies_behind_many_entries_in_good_hands_is_claimed(redis: AsyncRedis) -> None:
    positions = await add(redis, *(str(number) for number in range(60)))
    busy, dead, heir = group(redis, "busy"), group(redis, "dead"), group(redis, "heir", claim_idle_seconds=60)
    held = [position for position, _ in await busy.read(count=59)]
    (left,) = await dead.read(count=9)
    await dead.hold([left[0]], idle_ms=120_000)
    await busy.hold(held, idle_ms=0)
    (found,) = await heir.claim(count=1)
    assert (found[0], await heir.deliveries([found])) == (positions[-1], [2])
    assert await heir.claim(count=1) == []


async def test_a_pending_entry_that_was_deleted_is_acknowledged(redis: AsyncRedis) -> None:
    readers = group(redis)
    first, *_ = await add(redis, "a", "b")
    await readers.read(count=9)
    await redis.xdel(STREAM, first)
    assert values(await readers.own(count=1)) == ["b"]
    assert await pending(redis) == 1


async def consumers(redis: AsyncRedis) -> set[Any]:
    return {row["name"] for row in await redis.xinfo_consumers(STREAM, GROUP)}


async def idle_for(redis: AsyncRedis, ms: int) -> bool:
    return all(row["idle"] >= ms for row in await redis.xinfo_consumers(STREAM, GROUP))


async def test_consumers_that_are_gone_are_forgotten_unless_they_hold_something(redis: AsyncRedis) -> None:
    await add(redis, "a")
    await group(redis, "holder").read(count=1)
    await redis.xgroup_createconsumer(STREAM, GROUP, "gone")
    await group(redis, "patient", claim_idle_seconds=60).claim(count=1)
    assert await consumers(redis) == {b"holder", b"gone", b"patient"}
    assert await eventually(lambda: idle_for(redis, 2))
    await group(redis, "tidy", claim_idle_seconds=60, forget_seconds=0.001).claim(count=1)
    assert await consumers(redis) == {b"holder", b"tidy"}


async def test_no_stream_has_no_consumers(redis: AsyncRedis) -> None:
    assert await group(redis).claim(count=1) == []
    with pytest.raises(ResponseError):
        await redis.xinfo_consumers("test:none", GROUP)
