"""What stays and what goes: by age and count, and never what somebody still has to handle."""

from __future__ import annotations

import asyncio
import time

from config.settings import HistorySettings, JournalSettings
from services.operations.upkeep.retention_job import RetentionJob
from services.store.connection import AsyncRedis
from services.store.event_transitions import EventTransitions, Made
from services.store.events.finished_events import FINISHED
from services.store.events.history import FAILED, HISTORY, UNMATCHED
from services.store.events.journal import STREAM, Journal
from services.store.lease import Lease
from services.store.retention import forget_histories, prune_indices, relieve, trim_stream
from services.store.runs.created_runs import RUN
from services.store.runs.dispatch_queues import DispatchQueues
from tests.unit.services.store.making import dispatch, event, name, pending, routed


async def _nobody() -> list[str]:
    return []


async def _done(redis: AsyncRedis, count: int, *, first: int = 0) -> list[str]:
    """Events that were routed to nobody and are finished."""
    events = [event(f"e{number}") for number in range(first, first + count)]
    positions = await pending(Journal(redis, JournalSettings()), *events)
    done = [routed(one.id, position) for one, position in zip(events, positions, strict=True)]
    await EventTransitions(redis, retention_seconds=60).route(done)
    return positions


async def _left(redis: AsyncRedis) -> int:
    return int(await redis.xlen(STREAM))


async def test_what_is_old_and_acknowledged_goes(redis: AsyncRedis) -> None:
    await _done(redis, 10)
    assert await trim_stream(redis, STREAM, retention_seconds=60) == 0
    await asyncio.sleep(0.02)  # the entries are to be older than a millisecond
    assert await trim_stream(redis, STREAM, retention_seconds=0.001) == 10


async def test_what_is_not_acknowledged_stays_whatever_its_age(redis: AsyncRedis) -> None:
    await _done(redis, 3)
    journal = Journal(redis, JournalSettings())
    await pending(journal, event("in-hand"))
    await _done(redis, 3, first=10)
    await journal.append([event("unread")], received="now")
    await asyncio.sleep(0.02)  # the entries are to be older than a millisecond
    assert await trim_stream(redis, STREAM, retention_seconds=0.001) == 3
    assert await _left(redis) == 5


async def test_every_group_counts(redis: AsyncRedis) -> None:
    await redis.xgroup_create(STREAM, "slow", id="0", mkstream=True)
    await _done(redis, 5)
    await asyncio.sleep(0.02)  # the entries are to be older than a millisecond
    assert await trim_stream(redis, STREAM, retention_seconds=0.001) == 0
    await redis.xreadgroup("slow", "one", {STREAM: ">"}, count=2)
    assert await trim_stream(redis, STREAM, retention_seconds=0.001) == 0
    await redis.xgroup_destroy(STREAM, "slow")
    assert await trim_stream(redis, STREAM, retention_seconds=0.001) == 5


async def test_what_a_queue_still_needs_stays(redis: AsyncRedis) -> None:
    journal, progress, queues = (
        Journal(redis, JournalSettings()),
        EventTransitions(redis, retention_seconds=60),
        DispatchQueues(redis),
    )
    await _done(redis, 3)
    one = event("held")
    (position,) = await pending(journal, one)
    await progress.route([routed("held", position, matched=["pay"], dispatches=[dispatch(one, position)])])
    await _done(redis, 3, first=10)
    await asyncio.sleep(0.02)  # the entries are to be older than a millisecond
    assert await trim_stream(redis, STREAM, retention_seconds=0.001, keep=queues.oldest_positions) == 3
    assert await _left(redis) == 4


async def test_no_more_are_kept_than_the_count_allows(redis: AsyncRedis) -> None:
    await _done(redis, 25)
    assert await trim_stream(redis, STREAM, retention_seconds=60, max_entries=10) == 15
    assert await trim_stream(redis, STREAM, retention_seconds=60, max_entries=10) == 0


async def test_histories_beyond_the_count_go_and_those_of_open_events_stay(redis: AsyncRedis) -> None:
    settings = HistorySettings(max_events=100)
    await _done(redis, 60)
    one = event("open")
    (position,) = await pending(Journal(redis, JournalSettings()), one)
    waiting = routed("open", position, matched=["pay"], dispatches=[dispatch(one, position)])
    await EventTransitions(redis, retention_seconds=60).route([waiting])
    await _done(redis, 100, first=100)
    assert await forget_histories(redis, settings) == 60
    assert await forget_histories(redis, settings) == 0
    assert await redis.exists(HISTORY + name("open")) == 1
    await _done(redis, 10, first=300)
    assert await forget_histories(redis, settings) == 10
    await trim_stream(redis, STREAM, retention_seconds=60, max_entries=100, keep=_nobody)
    await _done(redis, 5, first=400)
    assert await forget_histories(redis, settings) == 5
    assert await redis.exists(HISTORY + name("e404")) == 1


async def test_the_runs_of_a_forgotten_event_are_forgotten_with_it(redis: AsyncRedis) -> None:
    progress = EventTransitions(redis, retention_seconds=60)
    one = event("first")
    (position,) = await pending(Journal(redis, JournalSettings()), one)
    wanted = dispatch(one, position)
    await progress.route([routed("first", position, matched=["pay"], dispatches=[wanted])])
    await progress.created([Made("0-1", wanted, "r1")])
    await progress.run_state(
        run_id="r1", state_type="COMPLETED", state_name="Completed", message="", at_ms=1, final=True, url=""
    )
    assert await redis.exists(RUN + "r1")
    await _done(redis, 100)
    assert await forget_histories(redis, HistorySettings(max_events=100)) == 1
    assert not await redis.exists(RUN + "r1")


async def test_indices_lose_what_is_older_than_the_history(redis: AsyncRedis) -> None:
    old = int((time.time() - 100) * 1000)
    for index in (FAILED, UNMATCHED, "sluice:index:rule:pay"):
        await redis.zadd(index, {"1-0": old, "2-0": old + 1, "9-0": int(time.time() * 1000)})
    await prune_indices(redis, HistorySettings(retention_seconds=50))
    assert [await redis.zcard(index) for index in (FAILED, UNMATCHED, "sluice:index:rule:pay")] == [1, 1, 1]


async def test_when_redis_is_nearly_full_the_past_gives_way(redis: AsyncRedis) -> None:
    await _done(redis, 50)
    assert await relieve(redis, keep=_nobody) == 0
    journal = Journal(redis, JournalSettings())
    await journal.append([event(f"w{number}") for number in range(50)], received="now")
    await redis.config_set("maxmemory", int((await redis.info("memory"))["used_memory"]) + 1000)
    try:
        assert await relieve(redis, keep=_nobody) == 10
        assert not await redis.exists(HISTORY + name("e9"))
        assert await redis.exists(HISTORY + name("e10"))
        for _ in range(20):
            await relieve(redis, keep=_nobody)
        assert await _left(redis) == 50
    finally:
        await redis.config_set("maxmemory", 0)


async def test_the_retention_does_all_of_it_while_it_holds_the_lease(redis: AsyncRedis) -> None:
    await _done(redis, 20)
    retention = RetentionJob(
        redis=redis,
        stores=[DispatchQueues(redis)],
        lease=Lease(redis, "retention", ttl_seconds=60),
        journal=JournalSettings(retention_seconds=0.001),
        history=HistorySettings(),
    )
    await asyncio.sleep(0.02)  # the entries are to be older than a millisecond
    await retention.tidy()
    assert retention.status()["trimmed"] == 20
    assert await redis.xlen(FINISHED) == 20
