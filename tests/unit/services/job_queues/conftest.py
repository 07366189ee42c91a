"""A blocking client on the session's Valkey, and a worker that takes what the queue of signals holds."""

import zlib

import pytest
from rq.job import Job
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer

from config.settings import RedisSettings
from services.job_queues import queues
from services.job_queues.rq_keys import RESUME
from services.job_queues.workers import simple_worker
from services.store.connection import SyncRedis, connect_sync


@pytest.fixture
def redis_sync(valkey_url: str):
    client = connect_sync(valkey_url, RedisSettings())
    yield client
    client.close()


@pytest.fixture
def applied(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The arguments of the jobs that ran, with `services.jobs.apply_signal` replaced by a recorder."""
    seen: list[str] = []
    monkeypatch.setattr(queues, "import_attribute", lambda _: seen.append)
    return seen


def drain(redis_sync: SyncRedis) -> None:
    simple_worker([RESUME], redis_sync, "gate-test").work(burst=True)


def reason_of(redis_sync: SyncRedis, job_id: str) -> str:
    assert job_id in FailedJobRegistry(RESUME, connection=redis_sync, serializer=JSONSerializer).get_job_ids()
    assert redis_sync.llen(f"rq:queue:{RESUME}:intermediate") == 0
    return zlib.decompress(redis_sync.hget(Job.key_for(job_id), "exc_info")).decode()
