"""Dead letters stay, whole, until a person takes them away; the same failure twice is one letter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from events.dead_letter import DeadLetter
from services.store.connection import AsyncRedis
from services.store.dead_letters import LETTER, DeadLetters, LetterQuery, event_letter, letter_id_of
from services.store.keys import DEAD
from tests.unit.services.store.making import event

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def _letter(id_: str, *, minutes: int = 0, **fields: object) -> DeadLetter:
    at = NOW + timedelta(minutes=minutes)
    values = {"kind": "message", "code": "not-json", "reason": "no", "source": "redis:a", "raw": b"\x00\xff{"}
    return DeadLetter.model_validate({"id": id_, "first_failed": at, "last_failed": at} | values | fields)


@pytest.fixture
def dead(redis: AsyncRedis) -> DeadLetters:
    return DeadLetters(redis)


async def test_a_letter_comes_back_byte_for_byte(dead: DeadLetters) -> None:
    letter = _letter("l1", rule="pay", event_id="e1")
    await dead.add(letter)
    assert await dead.get("l1") == letter
    assert await dead.get("l2") is None


async def test_the_same_failure_again_counts_attempts_and_keeps_the_first_time(dead: DeadLetters) -> None:
    await dead.add(_letter("l1"))
    await dead.add(_letter("l1", minutes=5, reason="still no", code="too-deep"))
    letter = await dead.get("l1")
    assert letter is not None
    assert (letter.attempts, letter.reason, letter.code) == (2, "still no", "too-deep")
    assert letter.first_failed == NOW
    assert letter.last_failed == NOW + timedelta(minutes=5)
    assert await dead.count() == 1


async def test_letters_are_found_by_what_is_asked_for_newest_first(dead: DeadLetters) -> None:
    await dead.add(_letter("a", minutes=1, rule="pay", kind="event", event_id="e1", code="template"))
    await dead.add(_letter("b", minutes=3, source="http:x"))
    await dead.add(_letter("c", minutes=2, rule="ship", kind="event", event_id="e1"))

    async def ids(**asked: object) -> list[str]:
        return [letter.id for letter in await dead.search(LetterQuery(**asked), limit=10)]

    assert await ids() == ["b", "c", "a"]
    assert await ids(kind="event") == ["c", "a"]
    assert await ids(code="template") == ["a"]
    assert await ids(rule="ship") == ["c"]
    assert await ids(source="redis:*") == ["c", "a"]
    assert await ids(event_id="e1", rule="pay") == ["a"]
    assert await ids(since=(NOW + timedelta(minutes=2)).timestamp()) == ["b", "c"]
    assert len(await dead.search(LetterQuery(), limit=2)) == 2


async def test_discarded_letters_are_gone(dead: DeadLetters, redis: AsyncRedis) -> None:
    for id_ in "abc":
        await dead.add(_letter(id_))
    assert await dead.discard(["a", "c", "nobody"]) == 2
    assert [letter.id for letter in await dead.search(LetterQuery(), limit=9)] == ["b"]
    assert not await redis.exists(LETTER + "a")
    assert await dead.discard([]) == 0


async def test_a_replayed_letter_that_comes_back_remembers_its_beginning(dead: DeadLetters, redis: AsyncRedis) -> None:
    await dead.add(_letter("l1", raw=b"old"))
    await dead.replayed(_letter("l1"))
    assert await dead.get("l1") is None
    assert await dead.count() == 0
    assert 0 < await redis.ttl(LETTER + "l1") <= 7 * 86_400
    await dead.add(_letter("l1", minutes=9, raw=b"edited"))
    letter = await dead.get("l1")
    assert letter is not None
    assert (letter.attempts, letter.raw, letter.first_failed) == (2, b"edited", NOW)
    assert await redis.ttl(LETTER + "l1") == -1


async def test_letters_about_accepted_events_are_kept_even_when_redis_is_full(
    dead: DeadLetters, redis: AsyncRedis
) -> None:
    from events.errors import Backpressure

    await redis.config_set("maxmemory", 1)
    try:
        await dead.add(_letter("accepted", kind="event"))
        with pytest.raises(Backpressure):
            await dead.add(_letter("refused"))
    finally:
        await redis.config_set("maxmemory", 0)
    assert [letter.id for letter in await dead.search(LetterQuery(), limit=9)] == ["accepted"]
    assert await redis.zcard(DEAD) == 1


def test_ids_name_the_thing_and_not_the_moment() -> None:
    one = event_letter(event("e1"), rule="pay", code="a", reason="b")
    two = event_letter(event("e1"), rule="pay", code="c", reason="d")
    other = event_letter(event("e1"), rule="ship", code="a", reason="b")
    elsewhere = event_letter(event("e1").model_copy(update={"source": "x"}), rule="pay", code="a", reason="b")
    assert elsewhere.id != one.id
    assert one.id == two.id != other.id
    assert letter_id_of("a", "bc") != letter_id_of("ab", "c")


async def test_a_letter_that_came_back_before_its_replay_was_noted_stays(dead: DeadLetters) -> None:
    await dead.add(_letter("a"))
    read = await dead.get("a")
    assert read is not None
    await dead.add(_letter("a", last_failed=read.last_failed + timedelta(milliseconds=1)))  # the router was quicker
    await dead.replayed(read)
    again = await dead.get("a")
    assert again is not None
    assert again.attempts == 2
    assert [letter.id for letter in await dead.search(LetterQuery(), limit=5)] == ["a"]
    await dead.replayed(again)
    assert await dead.count() == 0


async def test_letters_expire_by_their_last_failure(dead: DeadLetters) -> None:
    await dead.add(_letter("old"))
    await dead.add(_letter("failed-again"))
    await dead.add(_letter("failed-again", minutes=10))
    await dead.add(_letter("new", minutes=20))
    assert await dead.expire((NOW + timedelta(minutes=5)).timestamp()) == 1
    assert [letter.id for letter in await dead.search(LetterQuery(), limit=9)] == ["new", "failed-again"]


async def test_a_row_without_a_time_hides_no_letter(dead: DeadLetters, redis: AsyncRedis) -> None:
    await dead.add(_letter("kept"))
    await redis.zadd(DEAD, {"for-ever": "+inf", "never": "-inf"})
    _, found = await dead.failed_since(0, limit=10, most=10)
    assert [one.id for _, one in found] == ["kept"]
    assert [one.id async for one in dead.walk(LetterQuery())] == ["kept"]
