"""The dispatch queues: decided runs that are not created yet, in order, one queue for each rule and deployment."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import JsonValue

from events.action import RunDeployment
from events.event import Event
from services.common.telemetry import tracing
from services.store.connection import AsyncRedis, ask_each, execute_and_replicate, replicas_to_wait_for, text
from services.store.keys import DISPATCH_QUEUE, DISPATCH_QUEUES, Key, is_position, is_queue_name
from services.store.unreadable import readable

NOTIFY: Final = "sluice:dispatch-queues:notify"
"""A stream of at most one entry: a new one notifies that a run was queued."""

FILE_VERSION: Final = "fileversion"
"""The extension attribute of file events with the announced version of the file."""


@dataclass(frozen=True, slots=True)
class Dispatch:
    """A run to be created, with the attributes of its events that its tags and its file check need."""

    action: RunDeployment
    source: str
    type: str
    positions: tuple[str, ...]
    """The positions of the events in the journal."""
    file: Mapping[str, JsonValue] | None = None
    """``path`` and ``version`` of the event's file."""
    part: bool = False
    """Whether it is a part of a run that was refused as a whole."""
    trace: str | None = None
    """The parent of its run's trace, as a ``traceparent``."""

    @property
    def queue(self) -> str:
        """The name of its queue."""
        return queue_of(self.action.rule, self.action.deployment)

    @property
    def token(self) -> str:
        """The token of this effect among those of its events."""
        return token_of(self.action)

    def to_json(self) -> str:
        """Return it as compact JSON: a hundred thousand of them may be queued."""
        body: dict[str, Any] = {
            "a": self.action.model_dump(mode="json", exclude_defaults=True, exclude={"kind"}),
            "s": self.source,
            "t": self.type,
            "p": self.positions,
        }
        if self.file is not None:
            body["f"] = self.file
        if self.part:
            body["h"] = 1
        if self.trace is not None:
            body["w"] = self.trace
        return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class QueuedRun:
    """A dispatch at its place in its queue."""

    entry: str
    dispatch: Dispatch


def dispatch_of(action: RunDeployment, events: Sequence[tuple[Event, str]]) -> Dispatch:
    """Return the dispatch of ``action`` for ``events`` (each with its position in the journal)."""
    first = events[0][0]
    return Dispatch(
        action=action,
        source=first.source,
        type=first.type,
        positions=tuple(position for _, position in events),
        file=_file(first) if len(events) == 1 else None,
        trace=tracing.trace_of(first) if tracing.is_on() else None,
    )


def queue_of(rule: str, deployment: str) -> str:
    """Return the name of the queue for ``rule`` and ``deployment``."""
    return f"{rule}:{deployment}"


def token_of(action: RunDeployment) -> str:
    """Return the token of this effect among those of one event."""
    return f"{action.rule}#{action.ordinal}" + (f"~{action.salt}" if action.salt else "")


class DispatchQueues:
    """Every queue; many processes may push, one at a time (see `services.store.lease`) removes entries.

    Every method raises `TransientError` when Redis is out of reach and `Backpressure` when it is full.
    """

    def __init__(self, redis: AsyncRedis) -> None:
        self._redis = redis

    async def names(self) -> list[str]:
        """Return the queues that are not empty."""
        found = await self._redis.smembers(DISPATCH_QUEUES)
        return sorted(readable(DISPATCH_QUEUES, is_queue_name, found))

    async def read(self, wanted: Mapping[str, tuple[str, int]]) -> dict[str, list[QueuedRun]]:
        """Read each queue after an entry (``""`` for the beginning), up to the given number of entries.

        If the settings require replicas, these have confirmed the entries: otherwise, if Prefect created a run for a
        file whose announcement a failover loses, the file would be found again and get a second run.
        """
        pipeline = self._redis.pipeline(transaction=False)
        for queue, (after, count) in wanted.items():
            pipeline.xrange(DISPATCH_QUEUE + queue, min=f"({after}" if after else "-", count=count)
        if replicas_to_wait_for(self._redis).number:
            pipeline.publish(NOTIFY, b"")  # nobody listens: a write for the replicas to confirm
        answers = await execute_and_replicate(self._redis, pipeline) if wanted else []
        return {
            queue: list(readable(DISPATCH_QUEUE + queue, _waiting, rows))
            for queue, rows in zip(wanted, answers[: len(wanted)], strict=True)
        }

    async def lengths(self, names: Sequence[str]) -> dict[str, int]:
        """Return the length of each queue."""
        return dict(await ask_each(self._redis, lambda pipeline, name: pipeline.xlen(DISPATCH_QUEUE + name), names))

    async def ends(self, names: Sequence[str]) -> dict[str, str]:
        """Return the last entry of each queue that is not empty."""
        found = await ask_each(
            self._redis, lambda pipeline, name: pipeline.xrevrange(DISPATCH_QUEUE + name, count=1), names
        )
        return {name: text(rows[0][0]) for name, rows in found if rows}

    async def oldest_positions(self) -> list[str]:
        """Return the journal's positions for the head of each queue, which must not be trimmed."""
        heads = await self.read(dict.fromkeys(await self.names(), ("", 1)))
        return [position for rows in heads.values() for one in rows for position in one.dispatch.positions]

    async def wait(self, last: str, *, seconds: float) -> str:
        """Wait for a notification after ``last``, at most ``seconds``; return what to pass as ``last`` next."""
        answer: Any = await self._redis.xread({NOTIFY: last}, block=max(1, int(seconds * 1000)), count=1)
        return text(answer[0][1][-1][0]) if answer else last


def parse_dispatch(payload: bytes) -> Dispatch:
    """Parse an entry of a queue."""
    body = json.loads(payload)
    file: Any = body.get("f")
    found = Dispatch(
        action=RunDeployment.model_validate(body["a"]),
        source=body["s"],
        type=body["t"],
        positions=tuple(is_position(position) for position in body["p"]),
        file=file,
        part="h" in body,
        trace=body.get("w"),
    )
    texts = all(isinstance(body[name], str) for name in "st") and isinstance(found.trace, str | None)
    if not texts or len(found.positions) != len(found.action.identities) or not (file is None or _names_a_file(file)):
        raise ValueError("not a dispatch")
    return found


def _names_a_file(file: Any) -> bool:
    return isinstance(file, dict) and "path" in file and isinstance(file["version"], str)


def _waiting(row: tuple[bytes, Mapping[bytes, bytes]]) -> QueuedRun:
    entry, fields = row
    return QueuedRun(text(entry), parse_dispatch(fields[b"d"]))


def _file(event: Event) -> dict[str, JsonValue] | None:
    version = event.extensions.get(FILE_VERSION)
    if not isinstance(version, str) or not isinstance(event.data, dict) or "path" not in event.data:
        return None
    return {"path": event.data["path"], "version": version}


KEYS: Final = (
    Key(DISPATCH_QUEUES, "set", "name of a queue that holds something", "until the queue is empty", is_queue_name),
    Key(
        DISPATCH_QUEUE + "*",
        "stream",
        "run that is decided and not yet created",
        "until the run is created, or has become a dead letter",
        lambda fields: parse_dispatch(fields[b"d"]),
    ),
    Key(NOTIFY, "stream", "notification of the dispatcher", "for good; at most one entry"),
)
