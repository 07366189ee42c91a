"""Whatever lies in Redis, a worker runs Sluice's own jobs and nothing else."""

import json
import os
import pickle
import threading
import zlib
from pathlib import Path

import pytest
from rq import Callback, Queue, Repeat
from rq.job import Job
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer

from config.settings import RedisSettings
from services.job_queues import queues
from services.job_queues.job_gate import APPLY_SIGNAL
from services.job_queues.queues import enqueue, owner_of_this_job, queue
from services.job_queues.rq_keys import RESUME
from services.job_queues.workers import ThreadWorker, simple_worker
from services.store.connection import SyncRedis, connect_sync
from services.store.dead_letters import DeadLetters, LetterQuery
from tests.support.waiting import wait_until

pytestmark = pytest.mark.usefixtures("redis")

MARK = "SLUICE_TEST_GATE_MARK"
FOREIGN = "signal-foreign"


class Bomb:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


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


def test_an_own_job_runs_once_under_its_id(redis_sync, applied):
    target = queue(RESUME, redis_sync)
    assert enqueue(target, APPLY_SIGNAL, "one", job_id="signal-1", timeout_seconds=5)
    assert not enqueue(target, APPLY_SIGNAL, "one", job_id="signal-1", timeout_seconds=5)
    drain(redis_sync)
    assert applied == ["one"]


async def test_a_pickled_job_is_kept_without_being_unpickled_and_the_next_one_runs(
    redis, redis_sync, applied, tmp_path
):
    mark = tmp_path / "unpickled"
    foreign = Queue(RESUME, connection=redis_sync).enqueue("os.getpid", Bomb(mark), job_id=FOREIGN)
    redis_sync.hset(foreign.key, mapping={"result": pickle.dumps(Bomb(mark)), "meta": pickle.dumps(Bomb(mark))})
    enqueue(queue(RESUME, redis_sync), APPLY_SIGNAL, "after", job_id="signal-1", timeout_seconds=5)
    payload = zlib.decompress(redis_sync.hget(foreign.key, "data"))
    drain(redis_sync)
    assert "pickle" in reason_of(redis_sync, foreign.id)
    assert applied == ["after"]
    (letter,) = await DeadLetters(redis).search(LetterQuery(kind="job"), limit=5)
    assert (letter.code, letter.source, letter.raw) == ("foreign-job", f"rq:{RESUME}", payload)
    assert foreign.id in letter.reason
    assert not mark.exists()


@pytest.mark.parametrize("function", ["os.system", "services.jobs", "services.jobs.os.system", "subprocess.run"])
async def test_a_function_that_is_not_on_the_list_is_kept_before_it_is_imported(redis, redis_sync, applied, function):
    foreign = Queue(RESUME, connection=redis_sync, serializer=JSONSerializer).enqueue(function, "true", job_id=FOREIGN)
    drain(redis_sync)
    assert function in reason_of(redis_sync, foreign.id)
    (letter,) = await DeadLetters(redis).search(LetterQuery(code="foreign-job"), limit=5)
    assert json.loads(letter.raw)[:1] == [function]
    assert applied == []


def test_a_foreign_function_is_refused_without_importing_its_module(redis_sync, applied, tmp_path, monkeypatch):
    mark = tmp_path / "imported"
    (tmp_path / "leaves_a_mark.py").write_text(f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    Queue(RESUME, connection=redis_sync, serializer=JSONSerializer).enqueue("leaves_a_mark.anything", job_id=FOREIGN)
    drain(redis_sync)
    assert not mark.exists()
    assert applied == []
    __import__("leaves_a_mark")
    assert mark.exists()  # it was there to be imported


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"on_success": Callback("os.abort")}, "success callback"),
        ({"on_failure": Callback("os.abort")}, "failure callback"),
        ({"on_stopped": Callback("os.abort")}, "stopped callback"),
        ({"repeat": Repeat(times=2)}, "repeats"),
    ],
)
def test_a_job_that_brings_something_along_is_put_aside(redis_sync, applied, options, what):
    foreign = Queue(RESUME, connection=redis_sync, serializer=JSONSerializer).enqueue(
        APPLY_SIGNAL, "x", job_id=FOREIGN, **options
    )
    drain(redis_sync)
    assert what in reason_of(redis_sync, foreign.id)
    assert applied == []


def test_a_dependent_of_an_own_job_is_never_started(redis_sync, applied):
    first = queue(RESUME, redis_sync).enqueue(APPLY_SIGNAL, args=("first",), job_id="signal-1")
    Queue(RESUME, connection=redis_sync, serializer=JSONSerializer).enqueue(
        APPLY_SIGNAL, "dependent", job_id=FOREIGN, depends_on=first
    )
    drain(redis_sync)
    assert applied == ["first"]


async def test_a_foreign_job_of_any_size_becomes_a_small_letter(redis, redis_sync, applied):
    packed = zlib.compress(b"x" * 50_000_000)
    redis_sync.hset("rq:job:signal-large", mapping={"data": packed, "status": "queued"})
    redis_sync.rpush(f"rq:queue:{RESUME}", "signal-large")
    drain(redis_sync)
    (letter,) = await DeadLetters(redis).search(LetterQuery(code="foreign-job"), limit=5)
    assert letter.raw == b"x" * 4096
    assert f"{len(packed)} bytes as it is stored" in letter.reason


def test_a_payload_that_unpacks_to_far_more_than_it_weighs_is_put_aside(redis_sync, applied, monkeypatch):
    monkeypatch.setattr("services.job_queues.job_gate.MAX_PAYLOAD_BYTES", 1_000_000)
    redis_sync.hset("rq:job:signal-bomb", mapping={"data": zlib.compress(b"[" * 50_000_000), "status": "queued"})
    redis_sync.rpush(f"rq:queue:{RESUME}", "signal-bomb")
    drain(redis_sync)
    assert "unpacks to more" in reason_of(redis_sync, "signal-bomb")


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


def test_an_abandoned_job_calls_nothing_when_the_registry_is_cleaned(redis_sync, applied, tmp_path):
    mark = tmp_path / "unpickled"
    redis_sync.hset(
        "rq:job:gone", mapping={"data": pickle.dumps(("os.abort", None, (Bomb(mark),), {})), "status": "started"}
    )
    redis_sync.hset("rq:job:gone", mapping={"failure_callback_name": "os.abort"})
    redis_sync.zadd(f"rq:wip:{RESUME}", {"gone:execution": 1})
    drain(redis_sync)
    assert not mark.exists()


def test_an_idle_worker_in_a_thread_ends_when_it_is_woken(redis_sync, monkeypatch):
    monkeypatch.setattr("services.job_queues.workers._WORKER_TTL_SECONDS", 75)  # it waits a minute for a job
    begun = threading.Event()
    worker = simple_worker([RESUME], redis_sync, "idle-test", begun=begun.set)
    thread = threading.Thread(target=worker.work)
    thread.start()
    assert begun.wait(10)

    def gone() -> bool:
        worker.wake()
        return not thread.is_alive()

    worker.stop()
    wait_until(gone, what="the worker to end")


def test_a_worker_in_a_thread_stops_soon_after_it_is_told_to(valkey_url, redis_sync, applied):
    worker = simple_worker([RESUME], redis_sync, "thread-test")
    thread = threading.Thread(target=worker.work)
    thread.start()
    client = connect_sync(valkey_url, RedisSettings())
    enqueue(queue(RESUME, client), APPLY_SIGNAL, "one", job_id="signal-1", timeout_seconds=5)
    wait_until(lambda: applied == ["one"], what="the job to run")
    worker.stop()
    thread.join(5)
    assert not thread.is_alive()
    client.close()
    assert isinstance(worker, ThreadWorker)
    assert os.getpid()


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
