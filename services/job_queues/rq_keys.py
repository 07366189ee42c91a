"""The keys that RQ uses for the queues of Sluice."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Final

from services.store.keys import Key, is_text, scored

RUNS: Final = "sluice-runs"
RESUME: Final = "sluice-resume"

_JOB: Final = re.compile(rb"[A-Za-z0-9_:-]{1,300}")
_SIGNAL_JOB: Final = re.compile(rb"signal-[A-Za-z0-9_:-]{1,293}")


def is_job_id(raw: bytes, *, queue: str) -> None:
    """Raise `ValueError` unless it is the id of a job of the queue, with or without the id of its execution.

    RQ uses it in a key, and the resumer's user of Redis has rights only on jobs for signals.
    """
    if not (_SIGNAL_JOB if queue == RESUME else _JOB).fullmatch(raw):
        raise ValueError("not the id of a job of this queue")


def is_worker_key(raw: bytes) -> str:
    """Return the key of an RQ worker, which RQ reads for each member of its registries; else raise `ValueError`."""
    name = is_text(raw)
    if not name.startswith("rq:worker:"):
        raise ValueError("not the key of a worker")
    return name


def _is_job(fields: Mapping[bytes, bytes]) -> None:
    """Raise `ValueError` unless RQ could have written the job; `refusal` decides whether it may run."""
    for field in (b"status", b"origin", b"created_at"):
        fields.get(field, b"").decode()


_QUEUES: Final = (RUNS, f"{RUNS}-*", RESUME)

KEYS: Final = (
    Key("rq:job:*", "hash", "RQ job", "until it is done, and as long as RQ's tools show it", _is_job, whole=True),
    Key("rq:results:*", "stream", "result of an RQ job", "as its job"),
    Key("rq:executions:*", "zset", "execution of an RQ job", "as its job"),
    Key("rq:execution:*", "hash", "execution of an RQ job", "while it goes on, with a time to live"),
    Key("rq:queues", "set", "name of an RQ queue", "for good", is_text),
    Key("rq:workers", "set", "key of an RQ worker", "until RQ finds it gone", is_worker_key),
    Key("rq:worker:*", "hash", "RQ worker", "its worker's time to live"),
    Key("rq:worker:*:executions", "set", "execution of an RQ worker", "until it ends"),
    Key("rq:clean_registries:*", "string", "lock of RQ's maintenance", "15 minutes"),
    *(
        key
        for queue in _QUEUES
        for check in (partial(is_job_id, queue=queue),)
        for key in (
            Key(f"rq:queue:{queue}", "list", "id of an RQ job", "until it is taken", check),
            Key(f"rq:queue:{queue}:intermediate", "list", "id of an RQ job", "while it is being taken", check),
            Key(f"rq:wip:{queue}", "zset", "execution of an RQ job that goes on", "until it ends", scored(check)),
            Key(f"rq:finished:{queue}", "zset", "id of a finished RQ job", "10 minutes", scored(check)),
            Key(f"rq:failed:{queue}", "zset", "id of a failed RQ job", "a day to a week", scored(check)),
            Key(f"rq:workers:{queue}", "set", "key of a worker of a queue", "until RQ finds it gone", is_worker_key),
        )
    ),
)
