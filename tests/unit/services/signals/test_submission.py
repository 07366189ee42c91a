"""Signals as they are handed in: recorded once before anybody is asked to apply them, and again if that failed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from config.settings import RedisSettings, ResumerSettings
from events.errors import RejectedEvent, TransientError
from events.signal import Outcome
from events.untrusted_json import Limits
from services.job_queues.queues import queue
from services.job_queues.rq_keys import RESUME
from services.signals.submission import SignalSubmission
from services.store.connection import AsyncRedis, SyncRedis, connect_sync
from services.store.signals.signals import SignalStore
from tests.unit.services.store.making import event
from tests.unit.services.store.signals.making import R1, again, signal


@pytest.fixture
def store(redis: AsyncRedis) -> SignalStore:
    return SignalStore(redis, ResumerSettings(default_ttl_seconds=77))


@pytest.fixture
def rq_redis(valkey_url: str) -> Iterator[SyncRedis]:
    with connect_sync(valkey_url, RedisSettings()) as client:
        yield client


@pytest.fixture
def submission(store: SignalStore, rq_redis: SyncRedis) -> SignalSubmission:
    return SignalSubmission(store=store, rq_redis=rq_redis, limits=Limits())


def _jobs(rq_redis: SyncRedis) -> list[str]:
    return [job.args[0] for job in queue(RESUME, rq_redis).jobs]


async def test_a_signal_is_recorded_with_its_origin_and_a_resumer_is_asked(
    submission: SignalSubmission, store: SignalStore, rq_redis: SyncRedis
) -> None:
    assert await submission.submit(signal(), origin="HTTP") is None
    record = await again(store)
    assert (record.origin, record.status, record.signal.ttl_seconds) == ("HTTP", "received", 77)
    assert _jobs(rq_redis) == ["s1"]


async def test_the_origin_of_a_signal_without_one_is_its_event(
    submission: SignalSubmission, store: SignalStore
) -> None:
    await submission.submit(signal("s1", event_identity=event("e1").identity))
    await submission.submit(signal("s2", ttl_seconds=5))
    assert ((await again(store, "s1")).origin, (await again(store, "s2")).origin) == ("event e1", "-")
    assert (await again(store, "s2")).signal.ttl_seconds == 5


async def test_the_same_id_again_is_a_duplicate_and_asks_only_while_nobody_has_applied_it(
    submission: SignalSubmission, store: SignalStore, rq_redis: SyncRedis
) -> None:
    await submission.submit(signal())
    rq_redis.delete("rq:job:" + queue(RESUME, rq_redis).job_ids[0])
    rq_redis.delete(f"rq:queue:{RESUME}")
    assert await submission.submit(signal()) is Outcome.DUPLICATE
    assert _jobs(rq_redis) == ["s1"], "the first call may have failed after it was recorded"
    await store.decide(await again(store), Outcome.REJECTED, "no")
    rq_redis.delete(f"rq:queue:{RESUME}")
    assert await submission.submit(signal()) is Outcome.DUPLICATE
    assert _jobs(rq_redis) == []


async def test_where_the_queue_cannot_be_reached_the_same_call_completes_it(
    submission: SignalSubmission, store: SignalStore, rq_redis: SyncRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    from services.signals import submission as module

    def away(*_: object, **__: object) -> None:
        raise TransientError("away")

    with monkeypatch.context() as broken:
        broken.setattr(module, "enqueue", away)
        with pytest.raises(TransientError):
            await submission.submit(signal())
    assert (await again(store)).status == "received"
    assert await submission.submit(signal()) is Outcome.DUPLICATE
    assert _jobs(rq_redis) == ["s1"]


async def test_input_that_prefect_would_execute_is_refused_before_it_is_recorded(
    submission: SignalSubmission, store: SignalStore
) -> None:
    with pytest.raises(RejectedEvent):
        await submission.submit(signal(input={"deep": [{"__prefect_kind": "jinja", "template": "{{ 1 }}"}]}))
    assert await store.get("s1") is None


async def test_a_message_is_taken_in_as_a_signal_or_refused(submission: SignalSubmission, store: SignalStore) -> None:
    raw = f'{{"id": "m1", "run_id": "{R1}", "input": {{"n": 1}}}}'.encode()
    assert await submission.accept(raw, "stream") is None
    assert (await again(store, "m1")).signal.input == {"n": 1}
    for bad in (b"no json", b"[]", b'{"id": "m2"}', b'{"key": "k", "event_identity": "x"}'):
        with pytest.raises(RejectedEvent):
            await submission.accept(bad, "stream")


async def test_an_id_of_any_characters_makes_a_job_of_its_own(
    submission: SignalSubmission, rq_redis: SyncRedis
) -> None:
    ids = ["a:b/ü *", "a:b/ü-*", "x" * 256]
    for id_ in ids:
        await submission.submit(signal(id_))
    assert _jobs(rq_redis) == ids


async def test_whoever_asks_gets_any_outcome_in_time(submission: SignalSubmission, store: SignalStore) -> None:
    await submission.submit(signal())
    await store.buffer(await again(store), "early")
    found = await submission.outcome("s1", 5)
    assert found is not None
    assert found.status == "buffered"
