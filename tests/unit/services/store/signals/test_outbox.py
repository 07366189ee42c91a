"""The outbox: each outcome in order, to one publisher, until it is published."""

from __future__ import annotations

import pytest

from config.settings import ResumerSettings
from events.signal import Outcome
from services.store.connection import AsyncRedis
from services.store.signals import outbox as outbox_module
from services.store.signals.outbox import Outbox, OutboxEntry
from services.store.signals.signal_keys import OUTBOX
from services.store.signals.signals import SignalStore
from services.store.unreadable import noted
from tests.support.waiting import eventually
from tests.unit.services.store.signals.making import NOW, again, signal, submitted


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "_BLOCK_SECONDS", 0.01)


@pytest.fixture
def store(redis: AsyncRedis) -> SignalStore:
    return SignalStore(redis, ResumerSettings())


async def test_outcomes_come_once_in_order_and_leave_when_they_are_published(
    redis: AsyncRedis, store: SignalStore
) -> None:
    await store.buffer(await submitted(store), "early")
    await store.decide(await again(store), Outcome.REJECTED, "no")
    outbox = Outbox(redis, consumer="one")
    told = await outbox.read()
    assert [(one.signal_id, one.status) for one in told] == [("s1", "buffered"), ("s1", "rejected")]
    assert all(abs((one.at - NOW).total_seconds()) < 3600 for one in told)
    assert await outbox.read() == []
    await outbox.done(told)
    assert await redis.xlen(OUTBOX) == 0


async def test_what_a_dead_publisher_had_goes_to_another_one(
    redis: AsyncRedis, store: SignalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.decide(await submitted(store), Outcome.REJECTED, "no")
    left = await Outbox(redis, consumer="dead").read()
    assert await Outbox(redis, consumer="early").read() == []
    monkeypatch.setattr(outbox_module, "_CLAIM_IDLE_SECONDS", 0.01)
    assert await eventually(Outbox(redis, consumer="other").read) == left


async def test_an_id_that_comes_again_is_told_each_time(redis: AsyncRedis, store: SignalStore) -> None:
    await submitted(store)
    for _ in range(2):
        new, _ = await store.submit(signal(), "test")
        assert not new
    told = await Outbox(redis, consumer="one").read()
    assert [one.status for one in told] == ["duplicate", "duplicate"]
    assert len({one.nth for one in told}) == 2


def test_a_final_outcome_that_is_told_again_is_the_same() -> None:
    assert OutboxEntry("1-0", "s1", "applied", NOW).nth == OutboxEntry("2-0", "s1", "applied", NOW).nth == ""


async def test_garbage_in_it_is_passed_over_and_noted(redis: AsyncRedis, store: SignalStore) -> None:
    noted.take()
    await redis.xadd(OUTBOX, {"id": "x"})
    await store.decide(await submitted(store, "a"), Outcome.REJECTED, "no")
    assert [one.signal_id for one in await Outbox(redis, consumer="one").read()] == ["a"]
    assert noted.take()[0] == {OUTBOX.encode()}
