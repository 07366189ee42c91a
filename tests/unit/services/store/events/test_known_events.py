"""An event is its source and its id."""

from __future__ import annotations

import pytest

from config.settings import HistorySettings, JournalSettings
from events.errors import NotFound, Refused
from events.event import Event
from events.identity import identity_of
from services.store.connection import AsyncRedis
from services.store.events.history import History
from services.store.events.journal import Appended, Journal
from services.store.events.known_events import KNOWN, KnownEvents
from tests.unit.services.store.making import RECEIVED, event


@pytest.fixture
def journal(redis: AsyncRedis) -> Journal:
    return Journal(redis, JournalSettings())


@pytest.fixture
def history(redis: AsyncRedis) -> History:
    return History(redis, HistorySettings())


def _from(source: str, id_: str = "e1") -> Event:
    return event(id_).model_copy(update={"source": source})


async def _append(journal: Journal, *events: Event) -> list[Appended]:
    return await journal.append(events, received=RECEIVED)


async def test_one_id_from_two_sources_is_two_events(journal: Journal) -> None:
    first, second = await _append(journal, _from("/shop-a"), _from("/shop-b"))
    assert (first.new, second.new) == (True, True)
    again = await _append(journal, _from("/shop-b"), _from("/shop-a"))
    assert again == [Appended(second.position, False), Appended(first.position, False)]
    assert (await journal.depth()).entries == 2


async def test_ids_and_sources_of_any_characters_are_kept_apart(journal: Journal) -> None:
    pairs = [
        ("a", "b:c"),
        ("a:b", "c"),
        ("a", "b@c"),
        ("a@b", "c"),
        ("a b", "c"),
        ("a", "b c"),
        ("*", "[x]"),
        ("ü", "漢"),
    ]
    assert all(one.new for one in await _append(journal, *(_from(source, id_) for source, id_ in pairs)))
    assert not any(one.new for one in await _append(journal, *(_from(source, id_) for source, id_ in pairs)))


async def test_an_event_is_forgotten_with_its_key(redis: AsyncRedis, journal: Journal) -> None:
    await _append(journal, _from("/shop-a"))
    assert 0 < await redis.pttl(KNOWN + identity_of("/shop-a", "e1")) <= 7 * 86_400_000


async def test_an_id_that_several_events_share_needs_its_source(
    redis: AsyncRedis, journal: Journal, history: History
) -> None:
    await _append(journal, _from("/shop-old"), _from("/shop-a"), _from("/shop-b"), _from("/shop-a", "alone"))
    assert await history.choose("alone") == identity_of("/shop-a", "alone")
    with pytest.raises(Refused, match="3 events have the id 'e1', from '/shop-a', '/shop-b', '/shop-old'") as said:
        await history.choose("e1")
    assert "--source" in said.value.reason
    assert await history.choose("e1", "/shop-b") == identity_of("/shop-b", "e1")
    assert await history.choose("e1", "*-old") == identity_of("/shop-old", "e1")
    with pytest.raises(NotFound, match="from the source '/nowhere'"):
        await history.choose("e1", "/nowhere")
    with pytest.raises(NotFound, match="'nobody' is not known"):
        await history.choose("nobody")


async def test_a_history_that_outlives_the_journals_memory_is_found_by_its_id(
    redis: AsyncRedis, history: History
) -> None:
    ids = ["e[1]", "e1", "e1@x"]
    for id_ in ids:
        await history.signal(identity_of("/shop", id_), "s", "applied")
    for id_ in ids:
        assert await history.choose(id_) == await history.choose(id_, "/shop") == identity_of("/shop", id_)


async def test_sources_are_found_by_identity(redis: AsyncRedis, journal: Journal) -> None:
    await _append(journal, _from("/shop-a"), _from("/shop-b"))
    names = [identity_of("/shop-b", "e1"), identity_of("/shop-a", "gone")]
    assert await KnownEvents(redis).sources(names) == dict(zip(names, ["/shop-b", None], strict=True))
