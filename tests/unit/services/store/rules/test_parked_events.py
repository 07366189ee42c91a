"""Events that a rule parks: kept in order until the rule works, and judged by that rule alone."""

from __future__ import annotations

import pytest

from config.settings import JournalSettings
from services.store.connection import AsyncRedis
from services.store.event_transitions import OPEN_VALUE, EventTransitions
from services.store.events.journal import Journal, JournalEntry
from services.store.rules import parked_events
from services.store.rules.parked_events import EVENTS, PARKED, ParkedEvents, parked_token
from services.store.unreadable import UnreadableKey, noted
from tests.unit.services.store.making import event, finished, name, pending, routed


@pytest.fixture
def parked(redis: AsyncRedis) -> ParkedEvents:
    return ParkedEvents(redis)


@pytest.fixture
def journal(redis: AsyncRedis) -> Journal:
    return Journal(redis, JournalSettings())


async def _park(redis: AsyncRedis, journal: Journal, *ids: str, rule: str = "pay", salt: str | None = None) -> None:
    positions = await pending(journal, *(event(id_) for id_ in ids))
    kept = {"parked": [rule], "effects": [(parked_token(rule), OPEN_VALUE)], "salt": salt}
    await EventTransitions(redis, retention_seconds=60).route(
        [routed(id_, at, matched=[rule], **kept) for id_, at in zip(ids, positions, strict=True)]
    )


async def _journalled(journal: Journal) -> list[JournalEntry]:
    return [entry for entry in await journal.read(count=100) if isinstance(entry, JournalEntry)]


async def test_a_parked_event_is_open_counted_and_not_trimmed(
    redis: AsyncRedis, journal: Journal, parked: ParkedEvents
) -> None:
    await _park(redis, journal, "a", "b")
    await _park(redis, journal, "c", rule="ship")
    assert await parked.counts() == {"pay": 2, "ship": 1}
    assert await finished(redis) == []
    oldest = await parked.oldest_positions()
    found = await journal.fetch(oldest)
    assert sorted(one.event.id for one in found.values()) == ["a", "c"]


async def test_events_are_judged_again_in_order_by_the_rule_that_parked_them(
    redis: AsyncRedis, journal: Journal, parked: ParkedEvents
) -> None:
    await _park(redis, journal, "a", "b")
    await _park(redis, journal, "c", rule="ship")
    assert await parked.unpark(["pay"]) == 2
    again = await _journalled(journal)
    assert [(one.event.id, one.only, one.replay) for one in again] == [("a", ("pay",), True), ("b", ("pay",), True)]
    assert await parked.counts() == {"ship": 1}
    assert await parked.unpark() == 1
    assert await parked.counts() == {}
    assert await redis.exists(PARKED, EVENTS + "pay", EVENTS + "ship") == 0


async def test_the_salt_of_a_rerun_is_kept_while_it_is_parked(
    redis: AsyncRedis, journal: Journal, parked: ParkedEvents
) -> None:
    await _park(redis, journal, "a", salt="s1")
    await parked.unpark()
    (again,) = await _journalled(journal)
    assert again.salt == "s1"


async def test_many_events_are_moved_in_steps(
    redis: AsyncRedis, journal: Journal, parked: ParkedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parked_events, "_STEP", 3)
    await _park(redis, journal, *(f"e{number}" for number in range(10)))
    assert await parked.unpark() == 10
    assert [one.event.id for one in await _journalled(journal)] == [f"e{number}" for number in range(10)]


async def test_what_is_parked_again_meanwhile_is_left_for_the_next_time(
    redis: AsyncRedis, journal: Journal, parked: ParkedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parked_events, "_STEP", 1)
    await _park(redis, journal, "a", "b")
    inner = parked_events._UNPARK

    async def unpark(client: AsyncRedis, **values: object) -> object:
        moved = await inner(client, **values)
        await redis.xadd(EVENTS + "pay", {"p": "1-0", "s": ""})
        await redis.sadd(PARKED, "pay")
        return moved

    monkeypatch.setattr(parked_events, "_UNPARK", unpark)
    assert await parked.unpark() == 2
    assert await parked.counts() == {"pay": 2}


async def test_garbage_among_them_is_noted_and_loses_no_event(
    redis: AsyncRedis, journal: Journal, parked: ParkedEvents
) -> None:
    noted.take()
    await _park(redis, journal, "a")
    await redis.xadd(EVENTS + "pay", {"p": "soon", "s": ""})
    with pytest.raises(UnreadableKey):
        await parked.unpark()
    assert noted.take()[0] == {f"{EVENTS}pay".encode()}
    assert [name(one.event.id) for one in await _journalled(journal)] in ([], [name("a")])
    assert (await parked.counts())["pay"] >= 1
