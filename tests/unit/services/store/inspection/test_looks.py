"""Whose turn it is to look at every key, and how somebody asks for it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from config.settings import RedisSettings
from services.local.embedded_servers import claim_port
from services.store.connection import AsyncRedis, SyncRedis, connect_sync
from services.store.inspection.looks import LOOKED, LOOKING, WANTED, Looks, ask_for_a_look
from services.store.unreadable import noted
from tests.support.waiting import eventually


@pytest.fixture
def looks(redis: AsyncRedis) -> Looks:
    return Looks(redis)


@pytest.fixture
def blocking(valkey_url: str) -> Iterator[SyncRedis]:
    with connect_sync(valkey_url, RedisSettings()) as client:
        yield client


async def test_one_process_looks_at_a_time_and_rests_afterwards(redis: AsyncRedis, looks: Looks) -> None:
    assert await looks.begin()
    assert not await Looks(redis).begin()
    await looks.end(1_767_000_000_000, rest_ms=5_000)
    assert 0 < await redis.pttl(LOOKING) <= 5_000
    assert await looks.last_ms() == 1_767_000_000_000
    assert not await looks.begin(), "not before the rest is over"
    await looks.end(1_767_000_000_001, rest_ms=0)
    assert await eventually(looks.begin)


async def test_a_process_that_died_as_it_looked_keeps_nobody_off_for_long(redis: AsyncRedis, looks: Looks) -> None:
    await looks.begin()
    assert 0 < await redis.pttl(LOOKING) <= 60_000


async def test_a_wish_is_known_until_a_later_look(looks: Looks) -> None:
    assert await looks.wanted_ms() == await looks.last_ms() == 0
    before = time.time_ns() // 1_000_000
    await looks.ask()
    assert before <= await looks.wanted_ms() <= time.time_ns() // 1_000_000


async def test_a_blocking_client_may_ask_too(redis: AsyncRedis, looks: Looks, blocking: SyncRedis) -> None:
    ask_for_a_look(blocking)
    assert await looks.wanted_ms() > 0
    await redis.delete(WANTED)


def test_whoever_asks_while_redis_is_away_goes_on() -> None:
    url = f"redis://127.0.0.1:{claim_port(0, 'nobody listens here')}/0"
    with connect_sync(url, RedisSettings()) as nobody:
        ask_for_a_look(nobody)


async def test_garbage_counts_as_no_time(redis: AsyncRedis, looks: Looks) -> None:
    noted.take()
    await redis.mset({LOOKED: "soon", WANTED: b"\xff"})
    assert await looks.last_ms() == await looks.wanted_ms() == 0
    assert noted.take()[0] == {LOOKED.encode(), WANTED.encode()}
