"""An event is its source and its id, also next to what was kept when its id alone named it."""

from __future__ import annotations

import pytest

from config.settings import HistorySettings, JournalSettings
from events.errors import NotFound, RejectedEvent
from events.event import Event
from events.identity import identity_of
from services.store.connection import AsyncRedis
from services.store.events.history import HISTORY, History
from services.store.events.journal import STREAM, Appended, Journal, JournalEntry
from services.store.events.known_events import KNOWN, KNOWN_BY_ID, KnownEvents
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


async def _journalled_by_id(redis: AsyncRedis, one: Event) -> str:
    """Leave what the journal left of an event when its id alone was its identity."""
    position = await redis.xadd(STREAM, {"event": one.to_json(), "received": RECEIVED, "listener": "test"})
    await redis.set(KNOWN_BY_ID + one.id, position, px=60_000)
    return position.decode()


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


async def test_a_repeat_of_what_was_journalled_by_its_id_is_known(redis: AsyncRedis, journal: Journal) -> None:
    position = await _journalled_by_id(redis, _from("/shop-a"))
    assert await _append(journal, _from("/shop-a")) == [Appended(position, False)]


async def test_another_source_with_such_an_id_is_another_event(redis: AsyncRedis, journal: Journal) -> None:
    await _journalled_by_id(redis, _from("/shop-a"))
    (other,) = await _append(journal, _from("/shop-b"))
    assert other.new
    assert not (await _append(journal, _from("/shop-a")))[0].new
    assert not (await _append(journal, _from("/shop-b")))[0].new


@pytest.mark.parametrize("left", [None, b"{broken", b"[1]", b"7"])
async def test_where_nobody_can_say_whose_the_id_was_it_counts_as_known(
    redis: AsyncRedis, journal: Journal, left: bytes | None
) -> None:
    position = b"1-1" if left is None else await redis.xadd(STREAM, {"event": left, "received": RECEIVED})
    await redis.set(KNOWN_BY_ID + "e1", position)
    assert await _append(journal, _from("/shop-a")) == [Appended(position.decode(), False)]


async def test_an_entry_of_that_time_keeps_its_name_also_in_a_replay(redis: AsyncRedis, journal: Journal) -> None:
    await _journalled_by_id(redis, _from("/shop-a"))
    (old,) = await journal.read()
    assert isinstance(old, JournalEntry)
    assert old.event.identity == "e1"
    await journal.append_again([(old.event, RECEIVED, "cli")])
    await _append(journal, _from("/shop-b"))
    again, new = await journal.read()
    assert isinstance(again, JournalEntry)
    assert isinstance(new, JournalEntry)
    assert (again.replay, again.event.identity) == (True, "e1")
    assert new.event.identity == identity_of("/shop-b", "e1")
    await journal.append_again([(new.event, RECEIVED, "cli")])
    (again,) = await journal.read()
    assert isinstance(again, JournalEntry)
    assert again.event.identity == identity_of("/shop-b", "e1")


async def test_an_id_that_several_events_share_needs_its_source(
    redis: AsyncRedis, journal: Journal, history: History
) -> None:
    await _journalled_by_id(redis, _from("/shop-old"))
    await _append(journal, _from("/shop-a"), _from("/shop-b"), _from("/shop-a", "alone"))
    assert await history.choose("alone") == identity_of("/shop-a", "alone")
    with pytest.raises(
        RejectedEvent, match="3 events have the id 'e1', from '/shop-a', '/shop-b', '/shop-old'"
    ) as said:
        await history.choose("e1")
    assert "--source" in said.value.reason
    assert await history.choose("e1", "/shop-b") == identity_of("/shop-b", "e1")
    assert await history.choose("e1", "*-old") == "e1"
    with pytest.raises(NotFound, match="from the source '/nowhere'"):
        await history.choose("e1", "/nowhere")
    with pytest.raises(NotFound, match="'nobody' is not known"):
        await history.choose("nobody")


async def test_a_history_that_outlives_the_journals_memory_is_found_by_its_id(
    redis: AsyncRedis, history: History
) -> None:
    ids = ["e[1]", "e1", "e1@x"]
    for id_ in ids:
        await history.note(identity_of("/shop", id_), None, "kept")
    for id_ in ids:
        assert await history.choose(id_) == await history.choose(id_, "/shop") == identity_of("/shop", id_)
    await redis.delete(HISTORY + identity_of("/shop", "e1"))
    await history.note("e1", None, "kept by the id alone")
    assert await history.choose("e1") == "e1"


async def test_sources_are_found_by_identity(redis: AsyncRedis, journal: Journal) -> None:
    await _journalled_by_id(redis, _from("/shop-old", "old"))
    await _append(journal, _from("/shop-a"), _from("/shop-b"))
    names = [identity_of("/shop-b", "e1"), "old", identity_of("/shop-a", "gone")]
    assert await KnownEvents(redis, stream=STREAM).sources(names) == dict(
        zip(names, ["/shop-b", "/shop-old", None], strict=True)
    )
