"""The listener on a Redis stream: a consumer group, acknowledged once the sink has taken the entries."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
from redis.exceptions import ResponseError

from config.settings import ListenerSettings
from events.errors import Backpressure, RejectedEvent, TransientError
from services.common import metrics
from services.common.backoff import Backoff
from services.listeners.message_intake import Message, Sink
from services.store.connection import AsyncRedis
from services.store.consumer_group import ConsumerGroup, Entry
from services.store.retention import trim_stream

GROUP: Final = "sluice"

_FIELD: Final = b"event"
_BLOCK_SECONDS: Final = 2.0
_FIRST_COUNT: Final = 16
_RELEASED_IDLE_MS: Final = 24 * 3_600_000
_TRIM_EVERY_SECONDS: Final = 30.0

log = structlog.get_logger()


@dataclass(kw_only=True, eq=False)
class StreamListener:
    """Reads ``stream`` as one consumer of the group `GROUP`; any number of them share the work.

    Entries are acknowledged after ``sink`` returned for them, so each reaches it at least once, under a key made of
    ``key_prefix`` (the stream's name) and the entry's id. ``delete``: acknowledged entries are deleted.
    ``trim_after_seconds``: entries this old that every group has acknowledged are deleted.
    """

    listener: str
    redis: AsyncRedis
    stream: str
    sink: Sink
    settings: ListenerSettings
    consumer: str
    key_prefix: str | None = None
    delete: bool = False
    trim_after_seconds: float | None = None

    def __post_init__(self) -> None:
        self._readers = ConsumerGroup(
            self.redis,
            self.stream,
            GROUP,
            consumer=self.consumer,
            claim_idle_seconds=self.settings.claim_idle_seconds,
            forget_seconds=max(60.0, self.settings.claim_idle_seconds * 10),
        )
        self._backoff = Backoff.of(f"reading the stream {self.stream}", self.settings)
        self._count = min(_FIRST_COUNT, self.settings.batch)
        self._ready = False
        self._claim_due = 0.0
        self._trim_due = 0.0

    def status(self) -> Mapping[str, Any]:
        """``ready`` once the consumer group is there; ``degraded`` while Redis or the journal is away or full."""
        return self._backoff.status(ready=self._ready, stream=self.stream)

    async def run(self) -> None:
        """Read until cancelled; entries that are not acknowledged then are handed back to the group."""
        while True:
            try:
                await self._readers.join()
                self._ready = True
                while entries := await self._readers.own(count=self._count):
                    await self._take(entries)
                while True:
                    await self._turn()
            except (TransientError, Backpressure, ResponseError) as error:
                # A ResponseError means that the key or the group is gone or has another type, until an operator repairs
                # it.
                metrics.retries.labels(self.listener).inc()
                await self._backoff.after(error)

    async def _turn(self) -> None:
        """Take over the entries of dead consumers, trim the stream if it is time, or read new entries."""
        now = time.monotonic()
        if now >= self._claim_due:
            if entries := await self._readers.claim(count=self._count):
                metrics.claimed.labels(self.listener).inc(len(entries))
                log.info(
                    "entries of a dead consumer taken over",
                    listener=self.listener,
                    stream=self.stream,
                    entries=len(entries),
                )
                await self._take(entries)
                return
            self._claim_due = now + self.settings.claim_idle_seconds / 4
        if now >= self._trim_due:
            self._trim_due = now + _TRIM_EVERY_SECONDS
            await self._trim()
        block_seconds = min(_BLOCK_SECONDS, self.settings.claim_idle_seconds / 4)
        entries = await self._readers.read(count=self._count, block_seconds=block_seconds)
        self._backoff.worked()
        await self._take(entries)

    async def _take(self, entries: Sequence[Entry]) -> None:
        while entries:
            entries = await self._finish(entries)

    async def _finish(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Pass the entries on and acknowledge them; return the next ones, read in the same round trip.

        None are read if there may be none, or if something else is due first.
        """
        ids = [entry_id for entry_id, _ in entries]
        messages = [self._message(entry_id.decode(), fields) for entry_id, fields in entries]
        try:
            await self._hand_on(messages, ids)
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self._readers.hold(ids, idle_ms=_RELEASED_IDLE_MS), 1)
            raise
        read_on = len(ids) >= self._count and time.monotonic() < min(self._claim_due, self._trim_due)
        weight = sum(len(message.raw) for message in messages)
        average = max(1, weight // max(1, len(messages)))
        fitting = max(1, self.settings.batch_bytes // average)
        self._count = min(self.settings.batch, fitting, self._count * 2)
        if read_on:
            return await self._readers.acknowledge_and_read(ids, count=self._count, delete=self.delete)
        await self._readers.acknowledge(ids, delete=self.delete)
        return []

    async def _hand_on(self, messages: Sequence[Message], ids: Sequence[bytes]) -> None:
        """Write a batch to the sink, as often as it takes; meanwhile its entries stay those of this consumer."""
        while messages:
            try:
                with metrics.emit_seconds.labels(self.listener).time():
                    await self.sink(messages)
            except (TransientError, Backpressure) as error:
                # No new entries are read meanwhile. These stay ours as long as we can reset their idle time.
                metrics.retries.labels(self.listener).inc()
                await self._backoff.after(error)
                with contextlib.suppress(TransientError, Backpressure, ResponseError):
                    await self._readers.hold(ids, idle_ms=0)
            else:
                self._backoff.worked()
                return

    async def _trim(self) -> None:
        if self.trim_after_seconds is not None:
            await trim_stream(self.redis, self.stream, retention_seconds=self.trim_after_seconds)

    def _message(self, entry_id: str, fields: Mapping[bytes, bytes]) -> Message:
        """Return an entry as a message; one without the field `event` becomes a dead letter with all of its fields."""
        key = f"{self.key_prefix or self.stream}/{entry_id}"
        origin = f"entry {entry_id} of the stream {self.stream}"
        raw = fields.get(_FIELD)
        if raw is not None:
            return Message(raw=raw, key=key, origin=origin)
        whole = {_text(name): _text(value) for name, value in fields.items()}
        fault = RejectedEvent(
            "no-event-field", f"the entry has no field `event`, only {', '.join(whole)}: put the event's JSON there"
        )
        return Message(raw=json.dumps(whole, ensure_ascii=False).encode(), key=key, origin=origin, fault=fault)


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(value).decode()
