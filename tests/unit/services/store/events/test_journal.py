"""The journal: each id once, in order, until it is acknowledged; what a dead reader left is claimed."""

from __future__ import annotations

import asyncio

from config.settings import JournalSettings
from services.store.connection import AsyncRedis
from services.store.events.journal import STREAM, Broken, Journal, JournalEntry, order, position_at
from services.store.keys import position_seconds
from tests.unit.services.store.making import RECEIVED, event


def _journal(redis: AsyncRedis, consumer: str = "one", **settings: float) -> Journal:
    return Journal(redis, JournalSettings(**settings), consumer=consumer)


async def test_an_event_is_read_as_it_was_written(redis: AsyncRedis) -> None:
    journal = _journal(redis)
    one = event(amount=5, note="ünïcode\n").model_copy(update={"extensions": {"fileversion": "1-2-3", "count": 7}})
    (appended,) = await journal.append([one], received=RECEIVED, listener="files:inbox")
    (entry,) = await journal.read()
    assert entry == JournalEntry(position=appended.position, event=one, received=RECEIVED, listener="files:inbox")
    assert position_seconds(entry.position) > 1_700_000_000


async def test_a_known_id_answers_with_the_first_position(redis: AsyncRedis) -> None:
    journal = _journal(redis)
    (first,) = await journal.append([event("a")], received=RECEIVED)
    again, other = await journal.append([event("a"), event("b")], received=RECEIVED)
    assert first.new
    assert (again.new, again.position) == (False, first.position)
    assert other.new
    assert (await journal.depth()).entries == 2


async def test_a_known_id_is_forgotten_after_its_time(redis: AsyncRedis) -> None:
    journal = _journal(redis, seen_seconds=0.05)
    await journal.append([event("a")], received=RECEIVED)
    await asyncio.sleep(0.1)  # twice the time
    (again,) = await journal.append([event("a")], received=RECEIVED)
    assert again.new


async def test_readers_share_the_entries_and_keep_their_order(redis: AsyncRedis) -> None:
    one, two = _journal(redis, "one"), _journal(redis, "two")
    await one.append([event(f"e{number}") for number in range(6)], received=RECEIVED)
    first, second = await one.read(count=3), await two.read(count=9)
    assert [_id(entry) for entry in (*first, *second)] == [f"e{number}" for number in range(6)]
    assert await one.read(count=3) == []
    depth = await one.depth()
    assert (depth.unread, depth.pending) == (0, 6)
    assert await one.acknowledge([entry.position for entry in first]) == 3
    assert await one.acknowledge([entry.position for entry in first]) == 0
    assert (await one.depth()).pending == 3


async def test_a_reader_waits_for_the_next_entry(redis: AsyncRedis) -> None:
    journal = _journal(redis)
    reading = asyncio.create_task(journal.read(block_seconds=5))
    await asyncio.sleep(0.05)  # it waits by now, most often
    await journal.append([event("late")], received=RECEIVED)
    assert [_id(entry) for entry in await reading] == ["late"]


async def test_only_what_was_left_alone_for_long_enough_is_claimed_and_it_is_counted(redis: AsyncRedis) -> None:
    dead, patient = _journal(redis, "dead"), _journal(redis, "patient", claim_idle_seconds=60)
    heir = _journal(redis, "heir", claim_idle_seconds=0.1)
    await dead.append([event("a"), event("b")], received=RECEIVED)
    await dead.read()
    assert await patient.claim(count=10) == []
    await asyncio.sleep(0.15)  # longer than they must have been left alone
    (first,) = await heir.claim()
    assert isinstance(first, JournalEntry)
    assert (first.event.id, first.deliveries) == ("a", 2)
    (second,) = await heir.claim(count=10)
    assert _id(second) == "b"
    assert await heir.claim(count=10) == []


async def test_a_group_that_vanished_with_its_server_is_made_anew(redis: AsyncRedis) -> None:
    journal = _journal(redis)
    assert await journal.claim() == []
    await journal.append([event("a")], received=RECEIVED)
    await journal.read()
    await redis.xgroup_destroy(STREAM, "router")
    assert [_id(entry) for entry in await journal.read()] == ["a"]


async def test_a_replay_names_its_rules_and_salt_and_passes_known_ids(redis: AsyncRedis) -> None:
    journal = _journal(redis)
    await journal.append([event("a")], received=RECEIVED)
    await journal.append_again([(event("a", amount=2), RECEIVED, "cli")], only=["pay"], salt="x1")
    first, again = await journal.read()
    assert isinstance(first, JournalEntry)
    assert isinstance(again, JournalEntry)
    assert (first.replay, first.only, first.salt) == (False, (), None)
    assert (again.replay, again.only, again.salt, again.event.data) == (True, ("pay",), "x1", {"amount": 2})
    (repeat,) = await journal.append([event("a")], received=RECEIVED)
    assert (repeat.new, repeat.position) == (False, first.position)


async def test_what_is_no_event_is_told_apart(redis: AsyncRedis) -> None:
    journal = _journal(redis)
    await redis.xadd(STREAM, {"event": b"\xff{", "received": "now"})
    await redis.xadd(STREAM, {"something": "else"})
    await journal.append([event("good")], received=RECEIVED)
    first, second, good = await journal.read()
    assert isinstance(first, Broken)
    assert first.raw == b"\xff{"
    assert isinstance(second, Broken)
    assert _id(good) == "good"


async def test_entries_are_fetched_by_position_as_far_as_they_are_there(redis: AsyncRedis) -> None:
    journal = _journal(redis)
    positions = [one.position for one in await journal.append([event("a"), event("b")], received=RECEIVED)]
    found = await journal.fetch([positions[1], "1-1", positions[1]])
    assert {position: entry.event.id for position, entry in found.items()} == {positions[1]: "b"}


def test_positions_sort_by_number_and_not_as_text() -> None:
    assert sorted(["10-0", "9-1", "9-10", "9-2"], key=order) == ["9-1", "9-2", "9-10", "10-0"]
    assert position_at(1.5) == "1500-0"


def _id(entry: JournalEntry | Broken) -> str:
    assert isinstance(entry, JournalEntry)
    return entry.event.id
