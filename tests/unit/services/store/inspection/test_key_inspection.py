"""What is not as declared is set aside, named, and the rest stays as it is."""

from __future__ import annotations

import random

import pytest

from config.settings import JournalSettings
from services.operations.upkeep.inspector import declared_keys
from services.store.connection import AsyncRedis
from services.store.dead_letters import KEPT_BYTES, QUARANTINE, DeadLetters, LetterQuery
from services.store.events.journal import STREAM, Journal
from services.store.inspection.key_inspection import KeyInspection
from services.store.keys import Key, KeyList, is_number
from services.store.runs.created_runs import RUNS
from tests.support import garbage
from tests.unit.services.store.making import RECEIVED, event

KEYS = KeyList(key for keys in declared_keys().values() for key in keys)
ALL = [key for key in KEYS if key.kind != "any"]


@pytest.fixture
def inspection(redis: AsyncRedis) -> KeyInspection:
    return KeyInspection(redis, KEYS)


@pytest.mark.parametrize("key", ALL, ids=[key.pattern for key in ALL])
async def test_garbage_under_the_key_is_set_aside_for_good(
    redis: AsyncRedis, inspection: KeyInspection, key: Key
) -> None:
    rng = random.Random(key.pattern)
    for kind in garbage.TYPES:
        for name in garbage.names_of(key, rng, ["evil"]):
            await redis.delete(name)
            for _ in range(3):
                await garbage.write(redis, name, kind, rng)
        await inspection.everything()
        assert not await garbage.misplaced(redis, KEYS)
        assert await inspection.everything() == 0, "nothing is left to set aside"
    assert await DeadLetters(redis).count() > 0


@pytest.mark.parametrize("value", [b"", b"007", b"-", b"9" * 30])
async def test_what_cannot_be_counted_on_from_is_set_aside(
    redis: AsyncRedis, inspection: KeyInspection, value: bytes
) -> None:
    counters = [key.pattern.replace("*", "x") for key in ALL if key.check is is_number and key.kind == "string"]
    for name in counters:
        await redis.set(name, value)
    assert await inspection.everything() == len(counters)
    for name in counters:
        assert await redis.incr(name) == 1


async def test_a_key_of_another_type_is_kept_whole_until_its_letter_is_discarded(
    redis: AsyncRedis, inspection: KeyInspection
) -> None:
    await redis.set(RUNS, b"x" * 100_000)
    assert await inspection.of(RUNS.encode()) == 1
    letters = DeadLetters(redis)
    (letter,) = await letters.search(LetterQuery(kind="stored"), limit=9)
    assert letter.code == "wrong-type"
    assert RUNS in letter.reason
    assert letter.raw == b"x" * KEPT_BYTES
    assert await redis.strlen(QUARANTINE + letter.id) == 100_000
    await letters.discard([letter.id])
    assert not await redis.exists(QUARANTINE + letter.id, RUNS)


async def test_an_element_that_is_none_is_taken_out_and_the_others_stay(
    redis: AsyncRedis, inspection: KeyInspection
) -> None:
    good = "00000000-0000-4000-8000-000000000000"
    await redis.zadd(RUNS, {good: 5, b"\xff\xfe": 1})
    assert await inspection.of(RUNS.encode()) == 1
    assert await redis.zrange(RUNS, 0, -1) == [good.encode()]
    (letter,) = await DeadLetters(redis).search(LetterQuery(kind="stored"), limit=9)
    assert letter.raw.startswith(b"\xff\xfe")
    assert letter.source == f"redis:{RUNS}"


async def test_many_bad_elements_do_not_make_as_many_letters(redis: AsyncRedis, inspection: KeyInspection) -> None:
    await redis.zadd(RUNS, {f"evil-{n}": n for n in range(1000)})
    assert await inspection.of(RUNS.encode()) == 1000
    assert await redis.zcard(RUNS) == 0
    assert await DeadLetters(redis).count() == 101


async def test_a_stream_with_an_entry_in_the_future_takes_entries_again(
    redis: AsyncRedis, inspection: KeyInspection
) -> None:
    journal = Journal(redis, JournalSettings(), consumer="one")
    await journal.append([event("a"), event("b")], received=RECEIVED)
    (first, *_) = await journal.read(count=1)
    await redis.xadd(STREAM, {"event": "evil"}, id="18446744073709551615-18446744073709551615")
    await journal.read(count=9)  # the group has come to the end of time
    assert await inspection.types() == 1
    (added,) = await journal.append([event("c")], received=RECEIVED)
    assert added.new
    (third,) = await journal.read(count=9)
    assert third.position == added.position
    depth = await journal.depth()
    assert depth.pending == 3, "what was in hand stays in hand"
    assert await journal.acknowledge([first.position]) == 1
    assert await inspection.types() == 0
