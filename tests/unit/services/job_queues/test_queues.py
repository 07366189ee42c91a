"""The queues: each job once under its id, and what is no job is put aside without ending who reads it."""

import pytest

from events.errors import Backpressure, Refused, TransientError
from services.job_queues import queues
from services.job_queues.job_gate import APPLY_SIGNAL
from services.job_queues.queues import enqueue, owner_of_this_job, queue, rq_translated
from services.job_queues.rq_keys import RESUME
from services.job_queues.workers import simple_worker
from services.store.dead_letters import DeadLetters, LetterQuery
from services.store.unreadable import UnreadableKey, noted
from tests.unit.services.job_queues.conftest import drain, reason_of

pytestmark = pytest.mark.usefixtures("redis")


def test_an_own_job_runs_once_under_its_id(redis_sync, applied):
    target = queue(RESUME, redis_sync)
    assert enqueue(target, APPLY_SIGNAL, "one", job_id="signal-1", timeout_seconds=5)
    assert not enqueue(target, APPLY_SIGNAL, "one", job_id="signal-1", timeout_seconds=5)
    drain(redis_sync)
    assert applied == ["one"]


async def test_an_entry_that_is_no_job_id_becomes_a_letter_and_does_not_end_the_worker(redis, redis_sync, applied):
    """Of this queue: no other job's key may be touched with the rights of the resumer."""
    ids = [b"\xff\xfe", b"a:b", b"../x", b"", b"evil"]
    redis_sync.rpush(f"rq:queue:{RESUME}", *ids)
    enqueue(queue(RESUME, redis_sync), APPLY_SIGNAL, "after", job_id="signal-1", timeout_seconds=5)
    drain(redis_sync)
    assert applied == ["after"]
    assert redis_sync.llen(f"rq:queue:{RESUME}:intermediate") == 0
    letters = await DeadLetters(redis).search(LetterQuery(code="foreign-job"), limit=9)
    assert {letter.raw for letter in letters} == set(ids)


@pytest.mark.parametrize(
    "fields",
    [
        {"data": b"[[[[[" * 100_000},
        {"data": b'["services.jobs.apply_signal", null, {}, {}]'},
        {"data": b'["services.jobs.apply_signal", null, []]'},
        {"data": b'["services.jobs.apply_signal", null, [], {}]', "status": "nonsense"},
        {"data": b'["services.jobs.apply_signal", null, [], {}]', "origin": b"\xff\xfe"},
        {"data": b'["services.jobs.apply_signal", null, [], {}]', "origin": "another", "status": "queued"},
        {"data": b'["services.jobs.apply_signal", null, [], {}]', "timeout": "soon", "status": "queued"},
    ],
)
def test_a_malformed_job_is_put_aside_and_does_not_end_the_worker(redis_sync, applied, fields):
    redis_sync.hset("rq:job:signal-bad", mapping=fields)
    redis_sync.rpush(f"rq:queue:{RESUME}", "signal-bad")
    enqueue(queue(RESUME, redis_sync), APPLY_SIGNAL, "after", job_id="signal-1", timeout_seconds=5)
    drain(redis_sync)
    assert reason_of(redis_sync, "signal-bad")
    assert applied == ["after"]


class Resumer:
    """Whom a worker works for."""


def test_a_job_finds_whom_its_worker_works_for(redis_sync, monkeypatch):
    found: list[object] = []
    monkeypatch.setattr(queues, "import_attribute", lambda _: lambda _signal: found.append(owner_of_this_job(Resumer)))
    owner = Resumer()
    for number, whose in enumerate((owner, None, object())):
        enqueue(queue(RESUME, redis_sync), APPLY_SIGNAL, "one", job_id=f"signal-{number}", timeout_seconds=5)
        simple_worker([RESUME], redis_sync, f"owned-{number}", owner=whose).work(burst=True)
    assert found == [owner]
    with pytest.raises(TypeError, match="Resumer"):
        owner_of_this_job(Resumer)


def test_an_id_can_be_used_again_once_its_job_is_forgotten(redis_sync, applied):
    target = queue(RESUME, redis_sync)
    for _ in range(2):
        assert enqueue(target, APPLY_SIGNAL, "one", job_id="signal-1", timeout_seconds=5, result_ttl=0)
        drain(redis_sync)
    assert applied == ["one", "one"]


def test_what_rq_cannot_read_is_told_as_unreadable_and_everything_is_to_be_checked():
    noted.take()
    with pytest.raises(UnreadableKey), rq_translated():
        int("garbage")
    assert noted.take() == (set(), True)


@pytest.mark.parametrize("error", [TransientError("away"), Backpressure("full"), Refused("foreign-job", "no")])
def test_an_error_that_says_what_to_do_is_left_as_it_is(error):
    noted.take()
    with pytest.raises(type(error)) as raised, rq_translated():
        raise error
    assert raised.value is error
    assert noted.take() == (set(), False)
