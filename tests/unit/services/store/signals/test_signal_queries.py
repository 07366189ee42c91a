"""Signals as they are read: by id, target, key, run and state, in the order in which they came."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from config.settings import ResumerSettings
from events.signal import Outcome
from services.store.connection import AsyncRedis
from services.store.signals import signal_queries
from services.store.signals.signal_keys import OPEN, RECORD
from services.store.signals.signal_record import Answered, Mark
from services.store.signals.signals import SignalStore
from services.store.unreadable import noted
from tests.unit.services.store.signals.making import NOW, R1, R2, WAIT, again, apply, submitted

EPOCH = datetime.fromtimestamp(0, UTC)


@pytest.fixture
def store(redis: AsyncRedis) -> SignalStore:
    return SignalStore(redis, ResumerSettings())


async def test_known_signals_come_in_the_order_that_was_asked_for(store: SignalStore, redis: AsyncRedis) -> None:
    for id_ in "abc":
        await submitted(store, id_)
    found = await store.get_many(["c", "unknown", "a"])
    assert [one.signal.id for one in found] == ["c", "a"]
    assert await store.get("unknown") is None
    noted.take()
    await redis.hset(f"{RECORD}b", "status", "garbage")
    assert [one.signal.id for one in await store.get_many(["a", "b"])] == ["a"]
    assert noted.take()[0] == {f"{RECORD}b".encode()}


async def test_open_signals_of_several_targets_come_in_the_order_of_their_arrival(store: SignalStore) -> None:
    await submitted(store, "first", key="k1")
    await submitted(store, "second", run_id=R1)
    await submitted(store, "third", key="k1")
    await submitted(store, "other", key="k9")
    decided = await submitted(store, "decided", key="k1")
    await store.decide(decided, Outcome.REJECTED, "no")
    found = await store.open_for([f"run {R1}", "key k1"])
    assert [one.signal.id for one in found] == ["first", "second", "third"]
    assert await store.with_signals([f"run {R1}", "key k1", "key k2"]) == {f"run {R1}", "key k1"}


async def test_a_run_that_becomes_known_late_gets_what_was_applied_to_the_others(store: SignalStore) -> None:
    await apply(store, await submitted(store, "for-all"))
    await apply(store, await submitted(store, "for-one", deliver="one"))
    assert [one.signal.id for one in await store.late_for(["k"], R2, EPOCH)] == ["for-all"]
    assert await store.late_for(["k"], R1, EPOCH) == [], "this run has had it"
    assert await store.late_for(["k"], R2, NOW + timedelta(hours=1)) == [], "it waits only since then"
    assert await store.with_signals(["key k"]) == {"key k"}


async def test_a_signal_is_due_at_its_time_and_not_when_it_is_decided(store: SignalStore, redis: AsyncRedis) -> None:
    assert await store.due() == []
    record = await submitted(store, "a")
    await submitted(store, "b")
    assert await store.due() == [], "its job is still expected to handle it"
    await store.look_again("a", -1)
    assert await store.due() == ["a"]
    await store.decide(record, Outcome.REJECTED, "no")
    await store.look_again("a", -1)
    assert await store.due() == []
    await redis.zadd(OPEN, {b"\xff": 0})
    await store.look_again("b", -1)
    assert await store.due() == ["b"], "garbage is passed over"


async def test_buffered_signals_are_walked_page_by_page(store: SignalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal_queries, "_PAGE", 2)
    for number in range(5):
        await store.buffer(await submitted(store, f"s{number}"), "early")
    await submitted(store, "received")
    pages = [[one.signal.id for one in page] async for page in store.buffered()]
    assert sorted(id_ for page in pages for id_ in page) == [f"s{number}" for number in range(5)]
    assert len(pages) == 3
    assert await store.counts() == (6, 5)


async def test_the_newest_that_are_wanted_are_listed_page_by_page(
    store: SignalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal_queries, "_PAGE", 2)
    for number in range(7):
        await submitted(store, f"s{number}", key="odd" if number % 2 else "even")
    odd = await store.newest(2, wanted=lambda record: record.signal.key == "odd")
    assert [one.signal.id for one in odd] == ["s5", "s3"]
    rest = await store.newest(9, wanted=lambda record: record.signal.key == "odd", before=odd[-1].place)
    assert [one.signal.id for one in rest] == ["s1"]


async def test_a_runs_signals_are_those_applied_to_it_and_those_that_name_it(store: SignalStore) -> None:
    await apply(store, await submitted(store, "applied"))
    await submitted(store, "named", run_id=R1)
    await submitted(store, "other", run_id=R2)
    assert [one.signal.id for one in await store.of_run(R1)] == ["applied", "named"]


async def test_what_was_applied_to_a_wait_is_known_by_that_wait(store: SignalStore) -> None:
    await apply(store, await submitted(store))
    assert await store.applied_by(R1, WAIT) == "s1"
    assert await store.applied_by(R1, "another") is None
    assert await store.applied_to([(R2, WAIT), (R1, WAIT)]) == [(R1, WAIT)]
    assert await store.applied_to([]) == []


async def test_runs_that_waited_for_a_key_are_known_with_their_last_wait(store: SignalStore) -> None:
    later = NOW + timedelta(seconds=5)
    await store.waits_began([(R1, "k", later), (R1, "k", NOW), (R2, "k", NOW)])
    waited = await store.waited_for(["k", "nobody"])
    assert {run: round((at - NOW).total_seconds()) for run, at in waited["k"].items()} == {R1: 5, R2: 0}
    assert waited["nobody"] == {}


async def test_answered_waits_come_newest_first_and_garbage_is_passed_over(
    store: SignalStore, redis: AsyncRedis
) -> None:
    for run_id in (R1, R2):
        await store.answered("k", Answered(run_id, NOW, NOW + timedelta(seconds=1), by="ann"))
    await redis.lpush("sluice:signals:answered:k", "no json", '[1, 2, 3, "x"]')
    assert [one.run_id for one in await store.answers_for("k")] == [R2, R1]


async def test_whoever_waits_for_an_outcome_hears_it_when_it_is_there(store: SignalStore) -> None:
    record = await submitted(store)
    asked = asyncio.create_task(store.outcome("s1", 60, of=[Outcome.REJECTED]))
    await store.buffer(record, "early")
    await store.decide(await again(store), Outcome.REJECTED, "no")
    found = await asked
    assert found is not None
    assert (found.status, found.reason) == ("rejected", "no")


async def test_without_an_outcome_in_time_the_signal_is_told_as_it_is(store: SignalStore) -> None:
    await submitted(store)
    found = await store.outcome("s1", 0.01, of=tuple(Outcome))
    assert found is not None
    assert found.status == "received"
    assert await store.outcome("unknown", 0, of=tuple(Outcome)) is None


async def test_a_mark_without_an_outcome_has_not_had_the_signal(store: SignalStore) -> None:
    await apply(store, await submitted(store))
    await store.settle(await again(store), R2, Mark(wait=WAIT))
    assert [one.signal.id for one in await store.late_for(["k"], R2, EPOCH)] == ["s1"]
