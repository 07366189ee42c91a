"""The tail of the journal: each event once it is decided on, and a word when nobody decides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from config.settings import HistorySettings, JournalSettings
from services.store.connection import AsyncRedis
from services.store.event_transitions import EventTransitions
from services.store.events import tail as tail_module
from services.store.events.event_history import EventHistory
from services.store.events.history import History, Query
from services.store.events.journal import Journal, JournalEntry
from services.store.events.tail import Tail
from tests.support.waiting import PATIENCE_SECONDS
from tests.unit.services.store.making import RECEIVED, event, pending, routed


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_module, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(tail_module, "_IDLE_SECONDS", 0.05)


@pytest.fixture
def tail(redis: AsyncRedis) -> Tail:
    return Tail(redis, History(redis, HistorySettings()))


async def _decide(redis: AsyncRedis, *ids: str, matched: tuple[str, ...] = ("pay",)) -> None:
    journal = Journal(redis, JournalSettings())
    positions = await pending(journal, *(event(id_) for id_ in ids))
    await EventTransitions(redis, retention_seconds=60).route(
        [routed(id_, position, matched=matched) for id_, position in zip(ids, positions, strict=True)]
    )


async def _next(found: AsyncIterator[EventHistory]) -> str:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return (await anext(found)).id


async def test_events_from_a_time_on_are_told_as_they_were_decided(redis: AsyncRedis, tail: Tail) -> None:
    await _decide(redis, "a", "b")
    found = tail.follow(Query(), since=0)
    assert [await _next(found), await _next(found)] == ["a", "b"]


async def test_what_nobody_has_decided_on_waits_and_holds_up_nothing(redis: AsyncRedis, tail: Tail) -> None:
    journal = Journal(redis, JournalSettings())
    await journal.append([event("undecided")], received=RECEIVED, listener="test")
    await journal.read()
    await _decide(redis, "decided")
    found = tail.follow(Query(), since=0)
    assert await _next(found) == "decided"


async def test_from_now_on_means_without_what_was_before(
    redis: AsyncRedis, tail: Tail, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _decide(redis, "before")
    follows, inner = asyncio.Event(), tail._read

    async def read(position: str, *, block_seconds: float) -> tuple[str, list[JournalEntry]]:
        follows.set()
        return await inner(position, block_seconds=block_seconds)

    monkeypatch.setattr(tail, "_read", read)
    asked = asyncio.create_task(_next(tail.follow(Query())))
    await follows.wait()
    await _decide(redis, "after")
    assert await asked == "after"


async def test_only_events_that_were_asked_for_are_told(redis: AsyncRedis, tail: Tail) -> None:
    await _decide(redis, "wanted")
    await _decide(redis, "unmatched", matched=())
    found = tail.follow(Query(unmatched=True), since=0)
    assert await _next(found) == "unmatched"
    found = tail.follow(Query(rule="pay"), since=0)
    assert await _next(found) == "wanted"


async def test_a_replay_is_not_told_a_second_time(redis: AsyncRedis, tail: Tail) -> None:
    await _decide(redis, "a")
    journal = Journal(redis, JournalSettings())
    await journal.append_again([(event("a"), RECEIVED, "test")])
    await journal.read()
    await _decide(redis, "b")
    found = tail.follow(Query(), since=0)
    assert [await _next(found), await _next(found)] == ["a", "b"]
