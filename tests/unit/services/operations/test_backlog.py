"""What waits is counted once, and its age is that of the oldest, whichever roles are alive."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from config.settings import JournalSettings, RedisSettings
from services.job_queues.queues import enqueue, queue
from services.job_queues.rq_keys import RESUME, RUNS
from services.operations.backlog import Backlog, BacklogPlace, age_text, read_backlog
from services.store.connection import AsyncRedis, connect_sync
from services.store.events.journal import STREAM, Journal
from services.store.keys import BUFFERED, DEAD, DISPATCH_QUEUE, DISPATCH_QUEUES
from services.store.signals.signal_keys import RECORD
from services.store.signals.waits import Waits
from tests.unit.services.store.making import event

NOW = datetime.now(UTC)


def ms_ago(hours: float) -> int:
    return int((time.time() - hours * 3600) * 1000)


def about(place: BacklogPlace) -> int:
    """The age in hours: a test may be slow."""
    return int((place.oldest_seconds or 0) // 3600)


@dataclass(frozen=True)
class Run:
    run_id: str
    since: datetime
    wait_id: str = "wait"
    memo: str = ""
    keys: tuple[str, ...] = ()
    deadline: datetime | None = None
    reminder: datetime | None = None


async def test_where_nothing_waits_there_is_nothing_to_tell(redis: AsyncRedis) -> None:
    assert await read_backlog(redis) == Backlog()


async def test_the_journals_oldest_is_what_no_router_has_or_what_one_has_in_hand(redis: AsyncRedis) -> None:
    for hours in (5, 3, 1):
        await redis.xadd(STREAM, {"event": event(str(hours)).to_json()}, id=f"{ms_ago(hours)}-0")
    found = (await read_backlog(redis)).journal
    assert (found.count, about(found)) == (3, 5)
    journal = Journal(redis, JournalSettings(), consumer="one")
    first, *_ = await journal.read(count=2)
    assert about((await read_backlog(redis)).journal) == 5
    await journal.acknowledge([first.position])
    found = (await read_backlog(redis)).journal
    assert (found.count, about(found)) == (2, 3)


async def test_everything_else_has_its_age_too(redis: AsyncRedis, valkey_url: str) -> None:
    sync_redis = connect_sync(valkey_url, RedisSettings())
    await redis.sadd(DISPATCH_QUEUES, "load:flow/d")
    for hours in (4, 2):
        await redis.xadd(DISPATCH_QUEUE + "load:flow/d", {"d": "{}"}, id=f"{ms_ago(hours)}-0")
    for name, wanted in ((RUNS, 6), (f"{RUNS}-gpu-high", 9), (RESUME, 3)):
        job = str(uuid.uuid4())
        enqueue(queue(name, sync_redis), "services.jobs.execute_run", job_id=job, timeout_seconds=9)
        await redis.hset(f"rq:job:{job}", "enqueued_at", (NOW - timedelta(hours=wanted)).isoformat())
    sync_redis.close()
    await redis.zadd(BUFFERED, {"s1": ms_ago(-9), "s2": ms_ago(-5)})
    await redis.hset(RECORD + "s1", "received", ms_ago(7))
    await redis.hset(RECORD + "s2", "received", ms_ago(2))
    await redis.zadd(DEAD, {"l1": ms_ago(80), "l2": ms_ago(1)})
    waits = Waits(redis)
    old, young = (Run(str(uuid.UUID(int=n)), NOW - timedelta(hours=hours)) for n, hours in ((1, 36), (2, 1)))
    await waits.began([old, young])
    found = (await read_backlog(redis)).places()
    assert {place: (one.count, about(one)) for place, one in found.items()} == {
        "journal": (0, 0),
        "dispatch_queues": (2, 4),
        "runs_queue": (2, 9),
        "waiting_runs": (2, 36),
        "resume_queue": (1, 3),
        "buffered_signals": (2, 7),
        "dead_letters": (2, 80),
    }
    await waits.ended(old.run_id, old.wait_id)
    left = (await read_backlog(redis)).waits
    assert (left.count, about(left)) == (1, 1)


async def test_a_key_that_holds_something_else_does_not_keep_the_rest_from_being_told(redis: AsyncRedis) -> None:
    await redis.set(DEAD, "garbage")
    await redis.set(STREAM, "garbage")
    await redis.zadd(BUFFERED, {"s1": 1})
    found = await read_backlog(redis)
    assert (found.dead.count, found.journal.count, found.buffered.count) == (0, 0, 1)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (90, "90 s"), (600, "10 min"), (3 * 3600, "3 h"), (200_000, "2 d")]
)
def test_an_age_is_written_in_the_unit_that_suits_it(seconds: float, text: str) -> None:
    assert age_text(seconds) == text


async def test_what_cannot_be_read_counts_as_nothing(redis: AsyncRedis) -> None:
    await redis.zadd("sluice:signals:buffered", {b"\xff\xfe": 1})
    await redis.sadd("rq:queues", b"\xff\xfe", "rq:queue:sluice-runs-default-normal")
    await redis.rpush("rq:queue:sluice-runs-default-normal", b"\xff\xfe")
    found = await read_backlog(redis)
    assert (found.buffered.count, found.buffered.oldest_seconds) == (1, None)
    assert (found.runs.count, found.runs.oldest_seconds) == (1, None)


async def test_a_time_that_is_none_has_no_age(redis: AsyncRedis) -> None:
    signal, job = str(uuid.uuid4()), str(uuid.uuid4())
    await redis.zadd(BUFFERED, {signal: 1})
    await redis.hset(RECORD + signal, "received", "9" * 400)
    await redis.sadd("rq:queues", "rq:queue:sluice-runs-default-normal")
    await redis.rpush("rq:queue:sluice-runs-default-normal", job)
    await redis.hset(f"rq:job:{job}", "enqueued_at", "9999-12-31T23:59:59-23:59")
    await redis.zadd(DEAD, {"letter": "-inf"})
    found = await read_backlog(redis)
    assert (found.buffered, found.dead) == (BacklogPlace(1), BacklogPlace(1))
    assert found.runs.count == 1
    json.dumps([place.as_json() for place in found.places().values()], allow_nan=False)
