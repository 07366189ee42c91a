"""The listener on a Redis stream: a consumer group, acknowledged once the sink has taken the entries."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog
from redis.exceptions import ResponseError

from config.settings import ListenerSettings
from events.errors import Backpressure, RejectedEvent, TransientError
from services.common import metrics
from services.common.backoff import Backoff
from services.listeners.message_intake import Message, Sink
from services.store.connection import AsyncRedis, translated
from services.store.retention import trim_stream

GROUP: Final = "sluice"

_FIELD: Final = b"event"
_BLOCK_MS: Final = 2000
_FIRST_COUNT: Final = 16
_RELEASED_IDLE_MS: Final = 24 * 3_600_000
_TRIM_EVERY_SECONDS: Final = 30.0

log = structlog.get_logger()

Entries = list[tuple[bytes, Mapping[bytes, bytes] | None]]

# KEYS: stream; ARGV: group, how long a consumer must have been idle in ms. Takes away consumers that hold nothing:
# each start of a process is a consumer of its own. Only a script sees that one holds nothing and removes it at once.
_FORGET: Final = """
local consumers = redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
local forgotten = 0
for _, fields in ipairs(consumers) do
  local name, pending, idle
  for i = 1, #fields, 2 do
    if fields[i] == 'name' then name = fields[i + 1] end
    if fields[i] == 'pending' then pending = fields[i + 1] end
    if fields[i] == 'idle' then idle = fields[i + 1] end
  end
  if pending == 0 and idle > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], name)
    forgotten = forgotten + 1
  end
end
return forgotten
"""


class StreamListener:
    """Reads ``stream`` as one consumer of the group `GROUP`; any number of them share the work.

    Entries are acknowledged after ``sink`` returned for them, so each reaches it at least once, under a key made of
    ``key_prefix`` (the stream's name) and the entry's id. ``delete``: acknowledged entries are deleted.
    ``trim_after_seconds``: entries this old that every group has acknowledged are deleted.
    """

    def __init__(
        self,
        *,
        listener: str,
        redis: AsyncRedis,
        stream: str,
        sink: Sink,
        settings: ListenerSettings,
        consumer: str,
        key_prefix: str | None = None,
        delete: bool = False,
        trim_after_seconds: float | None = None,
    ) -> None:
        self._listener = listener
        self._redis = redis
        self._stream = stream
        self._sink = sink
        self._settings = settings
        self._consumer = consumer
        self._key_prefix = key_prefix or stream
        self._delete = delete
        self._trim_after_seconds = trim_after_seconds
        self._forget = redis.register_script(_FORGET)
        self._backoff = Backoff(
            f"reading the stream {stream}",
            first_seconds=settings.backoff_seconds,
            longest_seconds=settings.max_backoff_seconds,
        )
        self._count = min(_FIRST_COUNT, settings.batch)
        self._ready = False
        self._claim_due = 0.0
        self._claim_from: Any = "0-0"
        self._trim_due = 0.0

    def status(self) -> Mapping[str, Any]:
        """``ready`` once the consumer group is there; ``degraded`` while Redis or the journal is away or full."""
        trouble = self._backoff.trouble
        return {"ready": self._ready, "stream": self._stream, **({"degraded": trouble} if trouble else {})}

    async def run(self) -> None:
        """Read until cancelled; what is in hand then is given back to the group."""
        while True:
            try:
                await self._join()
                await self._finish_own()
                while True:
                    await self._turn()
            except (TransientError, Backpressure, ResponseError) as error:
                # A ResponseError is the key or the group gone, or of another type: what an operator mends meanwhile.
                metrics.retries.labels(self._listener).inc()
                await self._backoff.after(error)

    async def _join(self) -> None:
        with translated():
            try:
                await self._redis.xgroup_create(self._stream, GROUP, id="0", mkstream=True)
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise
        self._ready = True

    async def _finish_own(self) -> None:
        """Take what was delivered to this consumer and not acknowledged: the answer or the acknowledgement was lost."""
        while entries := await self._read("0", block_ms=None):
            await self._take(entries)

    async def _turn(self) -> None:
        now = time.monotonic()
        if now >= self._claim_due:
            entries = await self._claim()
            if entries:
                metrics.claimed.labels(self._listener).inc(len(entries))
                log.info(
                    "entries of a dead consumer taken over",
                    listener=self._listener,
                    stream=self._stream,
                    entries=len(entries),
                )
                await self._take(entries)
                return
        if now >= self._trim_due:
            self._trim_due = now + _TRIM_EVERY_SECONDS
            await self._tidy()
        until_claim_ms = int(self._settings.claim_idle_seconds * 250)
        entries = await self._read(">", block_ms=min(_BLOCK_MS, until_claim_ms))
        self._backoff.worked()
        await self._take(entries)

    async def _read(self, position: str, *, block_ms: int | None) -> Entries:
        with translated():
            answer: Any = await self._redis.xreadgroup(
                GROUP, self._consumer, {self._stream: position}, count=self._count, block=block_ms
            )
        return _entries(answer)

    async def _claim(self) -> Entries:
        idle_ms = int(self._settings.claim_idle_seconds * 1000)
        with translated():
            position, entries, *_ = await self._redis.xautoclaim(
                self._stream, GROUP, self._consumer, idle_ms, start_id=self._claim_from, count=self._count
            )
        self._claim_from = position
        if position == b"0-0" and not entries:
            self._claim_due = time.monotonic() + self._settings.claim_idle_seconds / 4
        return list(entries)

    async def _take(self, entries: Entries) -> None:
        while entries:
            entries = await self._finish(entries)

    async def _finish(self, entries: Entries) -> Entries:
        """Hand the entries on and acknowledge them; answers the next ones, read on the same way to the server.

        None are read where there may be none, or where something else is due first.
        """
        ids = [entry_id for entry_id, _ in entries]
        messages = [self._message(entry_id.decode(), fields) for entry_id, fields in entries if fields]
        try:
            await self._hand_on(messages, ids)
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self._hold(ids, idle_ms=_RELEASED_IDLE_MS), 1)
            raise
        read_on = len(ids) >= self._count and time.monotonic() < min(self._claim_due, self._trim_due)
        weight = sum(len(message.raw) for message in messages)
        average = max(1, weight // max(1, len(messages)))
        fitting = max(1, self._settings.batch_bytes // average)
        self._count = min(self._settings.batch, fitting, self._count * 2)
        return await self._acknowledge(ids, read_on=read_on)

    async def _hand_on(self, messages: Sequence[Message], ids: Sequence[bytes]) -> None:
        while messages:
            try:
                with metrics.emit_seconds.labels(self._listener).time():
                    await self._sink(messages)
            except (TransientError, Backpressure) as error:
                # Nothing new is read meanwhile. The entries stay ours as long as we can say so.
                metrics.retries.labels(self._listener).inc()
                await self._backoff.after(error)
                with contextlib.suppress(TransientError, Backpressure, ResponseError):
                    await self._hold(ids, idle_ms=0)
            else:
                self._backoff.worked()
                return

    async def _hold(self, ids: Sequence[bytes], *, idle_ms: int) -> None:
        """Say that the entries have been in our hands for ``idle_ms``: none keeps them, many lets others claim them."""
        with translated():
            await self._redis.xclaim(self._stream, GROUP, self._consumer, 0, list(ids), idle=idle_ms, justid=True)

    async def _acknowledge(self, ids: Sequence[bytes], *, read_on: bool) -> Entries:
        with translated():
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.xack(self._stream, GROUP, *ids)
                if self._delete:
                    pipe.xdel(self._stream, *ids)
                if read_on:
                    pipe.xreadgroup(GROUP, self._consumer, {self._stream: ">"}, count=self._count)
                answers = await pipe.execute()
        return _entries(answers[-1]) if read_on else []

    async def _tidy(self) -> None:
        """Forget dead consumers and, where that is wanted, delete what everybody has acknowledged."""
        with translated():
            idle_ms = max(60_000, int(self._settings.claim_idle_seconds * 10_000))
            await self._forget(keys=[self._stream], args=[GROUP, idle_ms])
        if self._trim_after_seconds is not None:
            await trim_stream(self._redis, self._stream, retention_seconds=self._trim_after_seconds)

    def _message(self, entry_id: str, fields: Mapping[bytes, bytes]) -> Message:
        key = f"{self._key_prefix}/{entry_id}"
        origin = f"entry {entry_id} of the stream {self._stream}"
        raw = fields.get(_FIELD)
        if raw is not None:
            return Message(raw=raw, key=key, origin=origin)
        whole = {_text(name): _text(value) for name, value in fields.items()}
        fault = RejectedEvent(
            "no-event-field", f"the entry has no field `event`, only {', '.join(whole)}: put the event's JSON there"
        )
        return Message(raw=json.dumps(whole, ensure_ascii=False).encode(), key=key, origin=origin, fault=fault)


def _entries(answer: Any) -> Entries:
    return list(answer[0][1]) if answer else []


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(value).decode()
