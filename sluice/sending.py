"""Publishes events and resume signals from any Python program with redis-py."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from sluice.protocol import EVENTS_NAME, RESUME_NAME

if TYPE_CHECKING:
    from redis import Redis


def publish(
    type: str,  # noqa: A002 - the CloudEvents name of it
    data: Any = None,
    *,
    source: str = "python",
    subject: str | None = None,
    id: str | None = None,  # noqa: A002 - the CloudEvents name of it
    stream: str = EVENTS_NAME,
    redis: Redis | None = None,
    url: str | None = None,
) -> str:
    """Append an event to the Redis stream that Sluice reads; return its id.

    When this returns, Redis holds the event, and Sluice reads it even if it is not running now. Sending again under the
    same ``id`` starts nothing twice. ``redis`` is a blocking client to use; without it one is opened on ``url``, else
    on ``SLUICE_REDIS_URL``. Raises redis-py's errors, and `ValueError` for a type or source that is Sluice's own.
    """
    if type.startswith("sluice.") or source.startswith("files/"):
        raise ValueError(
            f"the type {type!r} with the source {source!r} is refused: types `sluice.*` and sources `files/*` are "
            "Sluice's own"
        )
    event_id = id or str(uuid.uuid4())
    event = {
        "specversion": "1.0",
        "id": event_id,
        "source": source,
        "type": type,
        "time": datetime.now(UTC).isoformat(),
        "data": data,
    }
    if subject is not None:
        event["subject"] = subject
    _append(stream, event, redis, url)
    return event_id


def send_signal(
    *,
    key: str | None = None,
    run_id: str | uuid.UUID | None = None,
    input: Mapping[str, Any] | None = None,  # noqa: A002 - the message's name of it
    action: Literal["resume", "reject"] = "resume",
    reason: str | None = None,
    by: str | None = None,
    deliver: Literal["all", "one"] = "all",
    ttl_seconds: float | None = None,
    buffer: bool = False,
    id: str | None = None,  # noqa: A002 - the message's name of it
    stream: str = RESUME_NAME,
    redis: Redis | None = None,
    url: str | None = None,
) -> str:
    """Resume (or reject) the run ``run_id``, or the runs that wait for ``key``; return the signal's id.

    When this returns, Redis holds the signal; a run that does not wait yet gets it when it does, for ``ttl_seconds`` (a
    day by default). If the last wait for the key is over, and so is the run that waited, the signal is late and answers
    no later run, unless ``buffer`` is true. Sending again under the same ``id`` resumes nothing twice. For ``redis``
    and ``url`` see `publish`.
    """
    if (key is None) == (run_id is None):
        raise ValueError("give exactly one of `key` and `run_id`")
    signal: dict[str, Any] = {"id": id or str(uuid.uuid4()), "input": dict(input or {}), "action": action}
    optional = {
        "key": key,
        "run_id": None if run_id is None else str(run_id),
        "reason": reason,
        "by": by,
        "ttl_seconds": ttl_seconds,
        "deliver": None if deliver == "all" else deliver,
        "buffer": buffer or None,
    }
    signal |= {name: value for name, value in optional.items() if value is not None}
    _append(stream, signal, redis, url)
    return str(signal["id"])


def _append(stream: str, message: Mapping[str, Any], client: Redis | None, url: str | None) -> None:
    body = json.dumps(message, ensure_ascii=False, allow_nan=False)
    if client is not None:
        client.xadd(stream, {"event": body})
        return
    where = url or os.environ.get("SLUICE_REDIS_URL")
    if not where:
        raise ValueError("no Redis named: pass `redis` or `url`, or set SLUICE_REDIS_URL")
    try:
        from redis import Redis as Client
    except ImportError as error:
        raise ImportError("publishing needs redis-py: pip install 'sluice-events[publish]'") from error
    with Client.from_url(where) as opened:
        opened.xadd(stream, {"event": body})
