"""What may stand in RQ's keys: ids of the queue's own jobs, and keys of workers."""

import pytest

from services.job_queues.rq_keys import KEYS, RESUME, RUNS, is_job_id, is_worker_key
from services.store.keys import KeyList


@pytest.mark.parametrize(
    ("queue", "job_id"), [(RESUME, b"signal-ab12"), (RESUME, b"signal-1:execution"), (RUNS, b"0-a_B:x"), (RUNS, b"x")]
)
def test_the_id_of_a_job_of_the_queue_is_taken(queue, job_id):
    is_job_id(job_id, queue=queue)


@pytest.mark.parametrize(
    ("queue", "job_id"),
    [(RESUME, b"run-1"), (RESUME, b"signal-"), (RUNS, b""), (RUNS, b"a b"), (RUNS, b"x" * 301), (RUNS, b"\xff"),
     (RUNS, b"a\n"), (RUNS, b"../x")],
)  # fmt: skip
def test_what_would_name_the_key_of_something_else_is_refused(queue, job_id):
    with pytest.raises(ValueError, match="not the id of a job"):
        is_job_id(job_id, queue=queue)


@pytest.mark.parametrize("name", [b"sluice:journal", b"rq:job:a", b"\xff", b""])
def test_only_the_key_of_a_worker_is_one(name):
    assert is_worker_key(b"rq:worker:slot-1") == "rq:worker:slot-1"
    with pytest.raises(ValueError):  # noqa: PT011 - also that of the decoder
        is_worker_key(name)


@pytest.mark.parametrize("queue", [RUNS, f"{RUNS}-gpu", RESUME])
@pytest.mark.parametrize("kind", ["queue:{}", "queue:{}:intermediate", "wip:{}", "failed:{}", "workers:{}"])
def test_every_key_of_a_queue_has_a_declaration_of_its_own(queue, kind):
    declared = KeyList(KEYS).of(f"rq:{kind.format(queue)}".encode())
    assert declared is not None
    assert declared.pattern.startswith(f"rq:{kind.partition(':')[0]}:sluice-")
