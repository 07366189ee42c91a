"""The beginning of an id stands for it: events, signals and dead letters, in a real Valkey."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from config.settings import HistorySettings, JournalSettings, ResumerSettings
from events.dead_letter import DeadLetter
from events.errors import NotFound, Refused
from events.event import parse_event
from events.signal import ResumeSignal
from events.untrusted_json import Limits
from services.store.connection import AsyncRedis
from services.store.dead_letters import DeadLetters, LetterQuery
from services.store.events.history import History, Query
from services.store.events.journal import Journal
from services.store.events.known_events import KnownEvents
from services.store.events.tail import Tail
from services.store.signals.signals import SignalStore

NOW = datetime.now(UTC)


def letter(id_: str) -> DeadLetter:
    return DeadLetter(
        id=id_, kind="message", code="x", reason="x", source="x", raw=b"", first_failed=NOW, last_failed=NOW
    )


async def publish(redis: AsyncRedis, *ids: str) -> None:
    fields = '"specversion": "1.0", "source": "shop", "type": "order"'
    events = [parse_event(f'{{"id": "{id_}", {fields}}}'.encode(), limits=Limits()) for id_ in ids]
    await Journal(redis, JournalSettings()).append(events, received=NOW.isoformat(), listener="test")


async def test_the_beginning_of_a_dead_letter_or_signal_stands_for_it(redis: AsyncRedis) -> None:
    letters, signals = DeadLetters(redis), SignalStore(redis, ResumerSettings())
    for id_ in ("abcd1111", "abcd2222", "abcd"):
        await letters.add(letter(id_))
        await signals.submit(ResumeSignal(id=id_, key="k", sent=NOW), origin="test")
    for choose in (letters.choose, signals.choose):
        assert await choose("abcd1") == "abcd1111"
        assert await choose("abcd") == "abcd", "a whole id counts before the beginning of others"
        with pytest.raises(NotFound):
            await choose("abc"), "too short to be taken for a beginning"
    await letters.discard(["abcd"])
    with pytest.raises(Refused, match="one of abcd1111, abcd2222"):
        await letters.choose("abcd")
    with pytest.raises(NotFound, match="there is no dead letter 'abcd\\*'"):
        await letters.choose("abcd*")


async def test_the_beginning_of_an_event_stands_for_it(redis: AsyncRedis) -> None:
    known = KnownEvents(redis)
    await publish(redis, "order-1", "order-10", "payment-1")
    assert await known.whole_id("paym") == "payment-1"
    assert await known.whole_id("order-1") == "order-1"
    assert await known.whole_id("pay") == "pay"
    assert await known.whole_id("nothing") == "nothing"
    with pytest.raises(Refused, match="one of order-1, order-10"):
        await known.whole_id("order")


async def test_letters_are_found_by_when_they_failed(redis: AsyncRedis) -> None:
    letters = DeadLetters(redis)
    await letters.add(letter("abcd"))
    at = NOW.timestamp()
    assert [one.id for one in await letters.search(LetterQuery(since=at - 1, until=at + 1), limit=5)] == ["abcd"]
    assert await letters.search(LetterQuery(until=at - 1), limit=5) == []


async def test_a_tail_says_that_nobody_judges(redis: AsyncRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.store.events.tail._LATE_SECONDS", 0.0)
    await publish(redis, "a", "b")
    told: asyncio.Queue[int] = asyncio.Queue()

    async def follow() -> None:
        async for _ in Tail(redis, History(redis, HistorySettings())).follow(
            Query(), since=0.0, on_backlog=told.put_nowait
        ):
            raise AssertionError("no event was judged")

    following = asyncio.create_task(follow())
    assert await asyncio.wait_for(told.get(), 60) == 2
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
