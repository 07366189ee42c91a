"""The memory between a channel and the journal: in order, bounded by bytes, dropped only when told."""

from __future__ import annotations

import asyncio

from services.listeners.message_intake import Message
from services.listeners.redis.buffer import Buffer


def _message(text: str) -> Message:
    return Message(raw=text.encode(), key=text, origin="a test")


async def test_messages_stay_in_their_order_until_they_are_dropped() -> None:
    buffer = Buffer(max_bytes=100)
    for text in ("one", "two", "three"):
        buffer.put(_message(text))
    assert [one.key for one in await buffer.peek(2, max_bytes=100)] == ["one", "two"]
    assert [one.key for one in await buffer.peek(9, max_bytes=100)] == ["one", "two", "three"]
    buffer.drop(2)
    assert [one.key for one in await buffer.peek(9, max_bytes=100)] == ["three"]
    assert (len(buffer), buffer.bytes) == (1, 5)


async def test_a_batch_ends_where_it_weighs_enough_and_is_never_empty() -> None:
    buffer = Buffer(max_bytes=100)
    for text in ("aaaa", "bbbb", "cccc"):
        buffer.put(_message(text))
    assert [one.key for one in await buffer.peek(9, max_bytes=1)] == ["aaaa"]
    assert [one.key for one in await buffer.peek(9, max_bytes=5)] == ["aaaa", "bbbb"]


async def test_a_full_buffer_has_no_room_until_something_is_dropped() -> None:
    buffer = Buffer(max_bytes=4)
    await buffer.room()
    buffer.put(_message("aaaaa"))
    assert buffer.full
    waiting = asyncio.create_task(buffer.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    buffer.drop(1)
    await waiting


async def test_whoever_waits_for_messages_or_for_their_end_is_woken() -> None:
    buffer = Buffer(max_bytes=4)
    await buffer.emptied()
    peeking = asyncio.create_task(buffer.peek(1, max_bytes=1))
    await asyncio.sleep(0)
    buffer.put(_message("a"))
    assert [one.key for one in await peeking] == ["a"]
    ending = asyncio.create_task(buffer.emptied())
    await asyncio.sleep(0)
    assert not ending.done()
    buffer.drop(1)
    await ending
