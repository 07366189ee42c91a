"""A run waits in its queue once, whatever states Prefect gives it meanwhile."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from config.settings import RedisSettings
from services.executor.job_enqueuer import JobEnqueuer
from services.job_queues.queues import queue
from services.job_queues.rq_keys import RUNS
from services.store.connection import AsyncRedis, SyncRedis, connect_sync

RUN = str(uuid.UUID(int=1))
SCHEDULED = str(uuid.UUID(int=2))
LATE = str(uuid.UUID(int=3))


@pytest.fixture
def sync_redis(redis: AsyncRedis, valkey_url: str) -> Iterator[SyncRedis]:
    client = connect_sync(valkey_url, RedisSettings())
    yield client
    client.close()


@pytest.fixture
def enqueuer(sync_redis: SyncRedis) -> Iterator[JobEnqueuer]:
    made = JobEnqueuer(sync_redis, held=lambda _: False)
    yield made
    made.close()


async def test_a_late_run_is_queued_and_counted_once(enqueuer: JobEnqueuer, sync_redis: SyncRedis) -> None:
    assert await enqueuer.put(RUNS, RUN, SCHEDULED)
    assert not await enqueuer.put(RUNS, RUN, LATE)
    assert not await enqueuer.put(RUNS, RUN, LATE, again=True)
    count, _ = await enqueuer.waiting([RUNS])
    assert (count, queue(RUNS, sync_redis).get_job_ids()) == (1, [SCHEDULED])


async def test_a_late_run_whose_job_was_taken_or_lost_is_queued(enqueuer: JobEnqueuer, sync_redis: SyncRedis) -> None:
    assert await enqueuer.put(RUNS, RUN, SCHEDULED)
    sync_redis.lpop(queue(RUNS, sync_redis).key)
    assert await enqueuer.put(RUNS, RUN, LATE)
    sync_redis.delete(f"rq:job:{LATE}")
    again = str(uuid.UUID(int=4))
    assert await enqueuer.put(RUNS, RUN, again)
    assert queue(RUNS, sync_redis).get_job_ids() == [LATE, again]
