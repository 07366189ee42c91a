"""Whatever lies in Redis, a worker runs Sluice's own jobs and nothing else."""

import json
import pickle
import zlib
from pathlib import Path

import pytest
from rq import Callback, Queue, Repeat
from rq.serializers import JSONSerializer

from services.job_queues.job_gate import APPLY_SIGNAL
from services.job_queues.queues import enqueue, queue
from services.job_queues.rq_keys import RESUME
from services.store.dead_letters import DeadLetters, LetterQuery
from tests.unit.services.job_queues.conftest import drain, reason_of

pytestmark = pytest.mark.usefixtures("redis")

FOREIGN = "signal-foreign"


class Bomb:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


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


def test_an_abandoned_job_calls_nothing_when_the_registry_is_cleaned(redis_sync, applied, tmp_path):
    mark = tmp_path / "unpickled"
    redis_sync.hset(
        "rq:job:gone", mapping={"data": pickle.dumps(("os.abort", None, (Bomb(mark),), {})), "status": "started"}
    )
    redis_sync.hset("rq:job:gone", mapping={"failure_callback_name": "os.abort"})
    redis_sync.zadd(f"rq:wip:{RESUME}", {"gone:execution": 1})
    drain(redis_sync)
    assert not mark.exists()
