"""The stream of finished events as the file archivers read it."""

from __future__ import annotations

import json

import pytest

from services.store.connection import AsyncRedis
from services.store.events.finished_events import FINISHED, FinishedEvents
from services.store.unreadable import noted
from tests.support.waiting import eventually


@pytest.fixture
def reader(redis: AsyncRedis) -> FinishedEvents:
    return FinishedEvents(redis, consumer="one", claim_idle_seconds=0.01)


async def _finish(redis: AsyncRedis, *identities: str) -> None:
    for identity in identities:
        await redis.xadd(FINISHED, {"finished": json.dumps({"identity": identity, "ok": True})})


async def test_endings_are_read_once_in_order_with_their_content(redis: AsyncRedis, reader: FinishedEvents) -> None:
    await _finish(redis, "a@x", "b@x", "c@x")
    first = await reader.read(count=2, block_seconds=0.01)
    assert [one.identity for one in first] == ["a@x", "b@x"]
    assert json.loads(first[0].raw) == {"identity": "a@x", "ok": True}
    assert [one.identity for one in await reader.read(count=2, block_seconds=0.01)] == ["c@x"]
    assert await reader.read(count=2, block_seconds=0.01) == []


async def test_what_a_silent_archiver_had_is_claimed_and_what_was_acknowledged_is_not(
    redis: AsyncRedis, reader: FinishedEvents
) -> None:
    await _finish(redis, "a@x", "b@x")
    done, left = await reader.read(count=2, block_seconds=0.01)
    await reader.acknowledge([done])
    other = FinishedEvents(redis, consumer="two", claim_idle_seconds=0.01)
    assert await eventually(lambda: other.claim(count=10)) == [left]
    assert await FinishedEvents(redis, consumer="three", claim_idle_seconds=60).claim(count=10) == []


@pytest.mark.parametrize("garbage", ["no json", "[]", '{"identity": 5}', "{}"])
async def test_garbage_in_the_stream_is_passed_over_and_noted(
    redis: AsyncRedis, reader: FinishedEvents, garbage: str
) -> None:
    noted.take()
    await redis.xadd(FINISHED, {"finished": garbage})
    await _finish(redis, "a@x")
    assert [one.identity for one in await reader.read(count=5, block_seconds=0.01)] == ["a@x"]
    assert noted.take()[0] == {FINISHED.encode()}
