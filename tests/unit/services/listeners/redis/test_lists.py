"""The list listener on a real Valkey, with the real journal behind it."""

from __future__ import annotations

from typing import Literal

from events.errors import TransientError
from services.listeners.redis.lists import ListListener
from services.store.connection import AsyncRedis
from services.store.events.inbound_streams import INBOUND, Inbound
from tests.support.sources import QUICK, Door, Letters, cloudevent, intake, running
from tests.support.waiting import eventually

LIST = "test:legacy"


def listener(
    redis: AsyncRedis, door: Door, letters: Letters, *, side: Literal["left", "right"] = "left", consumer: str = "one"
) -> ListListener:
    return ListListener(
        listener="redis:legacy",
        redis=redis,
        list_key=LIST,
        side=side,
        sink=intake(door, letters, type_="legacy.message").accept,
        settings=QUICK,
        consumer=consumer,
    )


async def _as_many(door: Door, count: int) -> bool:
    return len(await door.ids()) >= count


async def test_elements_become_events_in_their_order(redis: AsyncRedis) -> None:
    door = Door(redis)
    async with running(listener(redis, door, Letters())):
        await redis.rpush(LIST, *(cloudevent(f"e{number}") for number in range(1000)))
        await eventually(lambda: _as_many(door, 1000))
    assert await door.ids() == [f"e{number}" for number in range(1000)]
    assert await redis.llen(LIST) == 0


async def test_the_right_side_is_for_publishers_that_push_left(redis: AsyncRedis) -> None:
    door = Door(redis)
    await redis.lpush(LIST, cloudevent("first"), cloudevent("second"))
    async with running(listener(redis, door, Letters(), side="right")):
        await eventually(lambda: _as_many(door, 2))
    assert await door.ids() == ["first", "second"]


async def test_elements_that_are_alike_are_different_events(redis: AsyncRedis) -> None:
    door = Door(redis)
    await redis.rpush(LIST, b'{"n": 1}', b'{"n": 1}', b'{"n": 1}')
    async with running(listener(redis, door, Letters())):
        await eventually(lambda: _as_many(door, 3))
    assert len(set(await door.ids())) == 3


async def test_an_element_whose_mover_died_keeps_the_id_it_was_given(redis: AsyncRedis) -> None:
    """Moved and tagged, handed on, and the process gone before the acknowledgement: the next one adds nothing."""
    door, letters = Door(redis), Letters()
    await redis.rpush(LIST, b'{"n": 1}')
    assert await Inbound(redis, LIST, side="left").move(10, max_bytes=1000) == 1
    assert await redis.llen(LIST) == 0
    reader = listener(redis, door, letters)._reader
    entries = await reader._readers.read(count=1)
    await intake(door, letters, type_="legacy.message").accept(
        [reader._message(entry.decode(), fields) for entry, fields in entries]
    )
    async with running(listener(redis, door, letters, consumer="two")):
        await eventually(lambda: _emptied(redis))
    assert len(await door.ids()) == 1


async def _emptied(redis: AsyncRedis) -> bool:
    return await redis.xlen(INBOUND + LIST) == 0


async def test_the_inbound_stream_stays_short_while_the_journal_is_away(redis: AsyncRedis) -> None:
    door = Door(redis)
    door.troubles = [TransientError("not now")] * 10_000
    await redis.rpush(LIST, *(cloudevent(f"e{number}") for number in range(1000)))
    async with running(listener(redis, door, Letters())):
        await eventually(lambda: _moved(redis))
        assert await redis.xlen(INBOUND + LIST) <= 2 * QUICK.batch
        door.troubles.clear()
        await eventually(lambda: _as_many(door, 1000))
    assert await door.ids() == [f"e{number}" for number in range(1000)]


async def _moved(redis: AsyncRedis) -> bool:
    return await redis.xlen(INBOUND + LIST) >= 2 * QUICK.batch


async def test_nothing_is_left_behind_by_elements_that_were_taken(redis: AsyncRedis) -> None:
    door = Door(redis)
    await redis.rpush(LIST, cloudevent("a"))
    async with running(listener(redis, door, Letters())):
        await eventually(lambda: _as_many(door, 1))
        await eventually(lambda: _emptied(redis))


async def test_an_element_that_is_not_json_is_kept_and_the_next_one_handled(redis: AsyncRedis) -> None:
    door, letters = Door(redis), Letters()
    await redis.rpush(LIST, b"\xff\xfe not json", cloudevent("next"))
    async with running(listener(redis, door, letters)):
        await eventually(lambda: _as_many(door, 1))
        await eventually(lambda: _kept(letters))
    assert letters.raws == [b"\xff\xfe not json"]


async def _kept(letters: Letters) -> bool:
    return bool(letters.raws)


async def test_moving_stops_at_its_weight(redis: AsyncRedis) -> None:
    await redis.rpush(LIST, *(b"x" * 100 for _ in range(10)))
    assert await Inbound(redis, LIST, side="left").move(10, max_bytes=250) == 3
    assert await redis.llen(LIST) == 7
