"""What the tests of listeners share: a running part, the real journal as their door, and what came out of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

from config.settings import JournalSettings, ListenerSettings
from events.dead_letter import DeadLetter
from events.event import Event
from events.untrusted_json import Limits
from services.listeners.message_intake import MessageIntake, event_intake
from services.store.connection import AsyncRedis
from services.store.events.journal import STREAM, Appended, Journal

QUICK = ListenerSettings(
    backoff_seconds=0.02, max_backoff_seconds=0.1, claim_idle_seconds=0.3, lease_seconds=1.0, batch=100
)


class Part(Protocol):
    async def run(self) -> None: ...

    def status(self) -> Mapping[str, Any]: ...


class Letters:
    """The dead letters of one test, one for each id as the store keeps them."""

    def __init__(self) -> None:
        self.by_id: dict[str, DeadLetter] = {}

    async def add(self, letter: DeadLetter) -> None:
        self.by_id[letter.id] = letter

    @property
    def raws(self) -> list[bytes]:
        return [letter.raw for letter in self.by_id.values()]

    @property
    def codes(self) -> list[str]:
        return [letter.code for letter in self.by_id.values()]


class Door:
    """The journal behind an `emit` that can be told to fail first."""

    def __init__(self, redis: AsyncRedis) -> None:
        self._redis = redis
        self._journal = Journal(redis, JournalSettings())
        self.troubles: list[Exception] = []
        self.calls = 0
        self.open = asyncio.Event()
        self.open.set()

    async def emit(self, events: Sequence[Event]) -> Sequence[Appended]:
        self.calls += 1
        await self.open.wait()
        if self.troubles:
            raise self.troubles.pop(0)
        return await self._journal.append(events, received=datetime.now(UTC).isoformat())

    async def events(self) -> list[dict[str, Any]]:
        """What the journal holds, in its order."""
        return [json.loads(fields[b"event"]) for _, fields in await self._redis.xrange(STREAM)]

    async def ids(self) -> list[str]:
        return [event["id"] for event in await self.events()]


def intake(
    door: Door,
    letters: Letters,
    *,
    type_: str | None = None,
    listener: str = "redis:test",
    limits: Limits | None = None,
) -> MessageIntake[Event]:
    return event_intake(listener=listener, emit=door.emit, dead=letters, limits=limits or Limits(), default_type=type_)


def cloudevent(id_: str, **more: Any) -> bytes:
    return json.dumps({"specversion": "1.0", "id": id_, "source": "tests", "type": "test.happened", **more}).encode()


@asynccontextmanager
async def running(*parts: Part) -> AsyncIterator[None]:
    """The parts run in the block; one that ends by itself fails the test."""
    tasks = [asyncio.create_task(part.run()) for part in parts]
    try:
        yield
        for task in tasks:
            if task.done():
                task.result()
                raise AssertionError("a part ended by itself")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
