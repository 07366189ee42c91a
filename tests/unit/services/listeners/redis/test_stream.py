"""The stream listener on a real Valkey, with the real journal behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

from config.settings import ListenerSettings
from events.errors import Backpressure, TransientError
from services.listeners.message_intake import Message
from services.listeners.redis.stream import GROUP, StreamListener
from services.store.connection import AsyncRedis
from tests.support.sources import QUICK, Door, Letters, cloudevent, intake, running
from tests.support.waiting import eventually

STREAM = "sluice.events"


def listener(
    redis: AsyncRedis,
    door: Door,
    letters: Letters,
    *,
    type_: str | None = None,
    consumer: str = "one",
    settings: ListenerSettings = QUICK,
    trim_after_seconds: float | None = None,
) -> StreamListener:
    return StreamListener(
        listener="redis:test",
        redis=redis,
        stream=STREAM,
        sink=intake(door, letters, type_=type_).accept,
        settings=settings,
        consumer=consumer,
        trim_after_seconds=trim_after_seconds,
    )


async def pending(redis: AsyncRedis) -> int:
    return int((await redis.xpending(STREAM, GROUP))["pending"])


async def test_an_entry_becomes_an_event_and_is_acknowledged(redis: AsyncRedis) -> None:
    door, letters = Door(redis), Letters()
    async with running(listener(redis, door, letters)):
        await redis.xadd(STREAM, {"event": cloudevent("a")})
        await eventually(door.ids)
        await eventually(lambda: _none_pending(redis))
    assert await door.ids() == ["a"]


async def _holds(door: Door, count: int) -> bool:
    return len(await door.ids()) == count


async def _none_pending(redis: AsyncRedis) -> bool:
    return await pending(redis) == 0


async def test_entries_written_before_the_first_start_are_read_too(redis: AsyncRedis) -> None:
    await redis.xadd(STREAM, {"event": cloudevent("early")})
    door = Door(redis)
    async with running(listener(redis, door, Letters())):
        await eventually(door.ids)
    assert await door.ids() == ["early"]


async def test_many_entries_keep_their_order(redis: AsyncRedis) -> None:
    door = Door(redis)
    wanted = [f"e{number}" for number in range(1500)]
    async with redis.pipeline(transaction=False) as pipe:
        for name in wanted:
            pipe.xadd(STREAM, {"event": cloudevent(name)})
        await pipe.execute()
    async with running(listener(redis, door, Letters())):
        await eventually(lambda: _as_many(door, len(wanted)))
    assert await door.ids() == wanted


async def _as_many(door: Door, count: int) -> bool:
    return len(await door.ids()) >= count


async def test_plain_json_gets_the_type_of_its_source_and_an_id_from_its_place(redis: AsyncRedis) -> None:
    door = Door(redis)
    entry = await redis.xadd(STREAM, {"event": b'{"amount": 5}'})
    async with running(listener(redis, door, Letters(), type_="order.message")):
        await eventually(door.ids)
    (event,) = await door.events()
    assert event["id"] == f"{STREAM}/{entry.decode()}"
    assert (event["type"], event["source"], event["data"]) == ("order.message", "redis:test", {"amount": 5})


async def test_a_redelivered_plain_entry_is_journalled_once(redis: AsyncRedis) -> None:
    door, letters = Door(redis), Letters()
    await redis.xadd(STREAM, {"event": b'{"amount": 5}'})
    await redis.xgroup_create(STREAM, GROUP, id="0")
    # Another consumer read it, got it journalled, and died before it acknowledged.
    await redis.xreadgroup(GROUP, "dead", {STREAM: ">"})
    entry = (await redis.xrange(STREAM))[0][0].decode()
    await intake(door, letters, type_="t").accept(
        [listener(redis, door, letters)._message(entry, {b"event": b'{"amount": 5}'})]
    )
    async with running(listener(redis, door, letters, type_="t")):
        await eventually(lambda: _none_pending(redis))
    assert len(await door.ids()) == 1


async def test_what_a_dead_consumer_left_is_taken_over(redis: AsyncRedis) -> None:
    door = Door(redis)
    await redis.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    await redis.xadd(STREAM, {"event": cloudevent("left")})
    await redis.xreadgroup(GROUP, "dead", {STREAM: ">"})
    async with running(listener(redis, door, Letters())):
        await eventually(lambda: _none_pending(redis))
    assert await door.ids() == ["left"]


async def test_a_stream_that_never_runs_dry_does_not_keep_a_dead_consumers_entries_waiting(redis: AsyncRedis) -> None:
    door, letters = Door(redis), Letters()
    await redis.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    await redis.xadd(STREAM, {"event": cloudevent("left")})
    await redis.xreadgroup(GROUP, "dead", {STREAM: ">"})
    for number in range(200):
        await redis.xadd(STREAM, {"event": cloudevent(f"e{number}")})

    async def slowly(messages: Sequence[Message]) -> None:
        await asyncio.sleep(0.01)  # what a batch takes
        await intake(door, letters).accept(messages)

    part = StreamListener(
        listener="redis:test",
        redis=redis,
        stream=STREAM,
        sink=slowly,
        settings=QUICK.model_copy(update={"batch": 1}),
        consumer="one",
    )
    async with running(part):
        await eventually(lambda: _holds(door, 201))
    assert (await door.ids()).index("left") < 150


async def test_what_was_delivered_to_this_consumer_before_is_finished_first(redis: AsyncRedis) -> None:
    door = Door(redis)
    await redis.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    await redis.xadd(STREAM, {"event": cloudevent("first")})
    await redis.xreadgroup(GROUP, "one", {STREAM: ">"})
    await redis.xadd(STREAM, {"event": cloudevent("second")})
    slow_claims = QUICK.model_copy(update={"claim_idle_seconds": 3600})
    async with running(listener(redis, door, Letters(), settings=slow_claims)):
        await eventually(lambda: _holds(door, 2))
    assert await door.ids() == ["first", "second"]


async def test_an_entry_deleted_while_it_was_pending_holds_nothing_up(redis: AsyncRedis) -> None:
    door = Door(redis)
    await redis.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    gone = await redis.xadd(STREAM, {"event": cloudevent("gone")})
    await redis.xreadgroup(GROUP, "one", {STREAM: ">"})
    await redis.xdel(STREAM, gone)
    async with running(listener(redis, door, Letters())):
        await redis.xadd(STREAM, {"event": cloudevent("next")})
        await eventually(door.ids)
        await eventually(lambda: _none_pending(redis))
    assert await door.ids() == ["next"]


async def test_nothing_is_acknowledged_before_the_journal_has_it(redis: AsyncRedis) -> None:
    door = Door(redis)
    door.open.clear()
    await redis.xadd(STREAM, {"event": cloudevent("held")})
    async with running(listener(redis, door, Letters())):
        await eventually(lambda: _called(door))
        assert await pending(redis) == 1
        door.open.set()
        await eventually(lambda: _none_pending(redis))
    assert await door.ids() == ["held"]


async def _called(door: Door) -> bool:
    return door.calls > 0


async def test_trouble_behind_the_door_is_waited_out_and_shown(redis: AsyncRedis) -> None:
    door = Door(redis)
    door.troubles = [TransientError("Redis is out of reach")] * 3 + [Backpressure("Redis is full")] * 100
    part = listener(redis, door, Letters())
    async with running(part):
        await redis.xadd(STREAM, {"event": cloudevent("a")})
        await redis.xadd(STREAM, {"event": cloudevent("b")})
        await eventually(lambda: _trouble(part, "full"))
        door.troubles.clear()
        await eventually(lambda: _none_pending(redis))
        await eventually(lambda: _trouble(part, ""))
    assert await door.ids() == ["a", "b"]


async def _trouble(part: StreamListener, word: str) -> bool:
    said = part.status().get("degraded", "")
    return word in said if word else not said


async def test_entries_held_up_by_trouble_are_not_claimed_by_others(redis: AsyncRedis) -> None:
    door, other = Door(redis), Door(redis)
    await redis.xadd(STREAM, {"event": cloudevent("held")})
    door.troubles = [TransientError("not now")] * 15
    async with running(listener(redis, door, Letters())):
        await eventually(lambda: _called(door))
        async with running(listener(redis, other, Letters(), consumer="two")):
            await eventually(lambda: _none_pending(redis))
    assert other.calls == 0


async def test_a_stop_gives_back_what_is_in_hand_at_once(redis: AsyncRedis) -> None:
    stuck, door = Door(redis), Door(redis)
    stuck.open.clear()
    await redis.xadd(STREAM, {"event": cloudevent("handed-back")})
    slow_claims = QUICK.model_copy(update={"claim_idle_seconds": 3600})
    async with running(listener(redis, stuck, Letters(), settings=slow_claims)):
        await eventually(lambda: _called(stuck))
    async with running(listener(redis, door, Letters(), consumer="two", settings=slow_claims)):
        await eventually(door.ids)
    assert await door.ids() == ["handed-back"]


async def test_an_entry_without_the_event_field_is_kept_whole_as_a_dead_letter(redis: AsyncRedis) -> None:
    door, letters = Door(redis), Letters()
    async with running(listener(redis, door, letters)):
        await redis.xadd(STREAM, {"message": "hello", "bytes": b"\xff\x00"})
        await redis.xadd(STREAM, {"event": cloudevent("next")})
        await eventually(door.ids)
    assert letters.codes == ["no-event-field"]
    assert json.loads(letters.raws[0]) == {"message": "hello", "bytes": "base64:/wA="}


async def test_a_key_of_another_type_is_reported_and_waited_out(redis: AsyncRedis) -> None:
    door = Door(redis)
    await redis.set(STREAM, "in the way")
    part = listener(redis, door, Letters())
    async with running(part):
        await eventually(lambda: _trouble(part, "WRONGTYPE"))
        await redis.delete(STREAM)
        await redis.xadd(STREAM, {"event": cloudevent("after")})
        await eventually(door.ids)
    assert await door.ids() == ["after"]


async def test_a_stream_that_is_deleted_while_it_is_read_is_joined_again(redis: AsyncRedis) -> None:
    door = Door(redis)
    async with running(listener(redis, door, Letters())):
        await redis.xadd(STREAM, {"event": cloudevent("before")})
        await eventually(door.ids)
        await redis.delete(STREAM)
        await redis.xadd(STREAM, {"event": cloudevent("after")})
        await eventually(lambda: _as_many(door, 2))
    assert await door.ids() == ["before", "after"]


async def test_two_listeners_share_the_work_and_take_each_entry_once(redis: AsyncRedis) -> None:
    door = Door(redis)
    async with running(
        listener(redis, door, Letters(), consumer="one"), listener(redis, door, Letters(), consumer="two")
    ):
        for number in range(300):
            await redis.xadd(STREAM, {"event": cloudevent(f"e{number}")})
        await eventually(lambda: _as_many(door, 300))
        await eventually(lambda: _none_pending(redis))
    assert sorted(await door.ids()) == sorted(f"e{number}" for number in range(300))


async def test_acknowledged_entries_are_deleted_after_their_time_where_that_is_wanted(redis: AsyncRedis) -> None:
    await redis.xadd(STREAM, {"event": cloudevent("old")}, id="1000-0")
    await redis.xgroup_create(STREAM, "somebody-else", id="0")
    await redis.xreadgroup("somebody-else", "x", {STREAM: ">"})
    door = Door(redis)
    part = listener(redis, door, Letters(), trim_after_seconds=60)
    async with running(part):
        await redis.xadd(STREAM, {"event": cloudevent("new")})
        await eventually(lambda: _as_many(door, 2))
        await eventually(lambda: _none_pending(redis))
    await part._trim()
    assert await redis.xlen(STREAM) == 2  # somebody else still has to acknowledge the old one
    await redis.xack(STREAM, "somebody-else", "1000-0")
    await part._trim()
    assert [fields[b"event"] for _, fields in await redis.xrange(STREAM)] == [cloudevent("new")]


async def test_nothing_is_deleted_from_a_stream_where_nobody_asked_for_it(redis: AsyncRedis) -> None:
    await redis.xadd(STREAM, {"event": cloudevent("old")}, id="1000-0")
    door = Door(redis)
    part = listener(redis, door, Letters())
    async with running(part):
        await eventually(lambda: _as_many(door, 1))
        await eventually(lambda: _none_pending(redis))
    await part._trim()
    assert await redis.xlen(STREAM) == 1
