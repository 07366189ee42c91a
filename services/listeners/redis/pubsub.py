"""The listener on Redis pub/sub: one active subscriber among many processes, and a buffer that the journal empties."""

from __future__ import annotations

import asyncio
import contextlib
import random
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import structlog
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError

from config.settings import ListenerSettings
from events.errors import Backpressure, TransientError
from services.common import metrics
from services.common.backoff import Backoff, ended
from services.listeners.message_intake import Message, Sink
from services.listeners.redis.buffer import Buffer
from services.store.connection import AsyncRedis
from services.store.lease import Lease, now
from services.store.redis_errors import translated

_FLUSH_SECONDS: Final = 2.0
"""Time that a stop leaves for journalling the messages that were received."""
_DRAIN_SECONDS: Final = 0.5
_PING_SECONDS: Final = 2.0
_SILENT_SECONDS: Final = 6.0
"""A server that has not answered a ping for this long is out of reach, even if its connection looks alive."""

log = structlog.get_logger()


@dataclass(kw_only=True, eq=False)
class PubSubListener:
    """Subscribes to ``channel`` (a glob if ``pattern``) while it holds the lease of its source.

    Messages received while this process certainly holds the lease go to ``sink``, however long that takes, and are lost
    only with the process. A message that comes when another listener may have taken over is left to that one, unless
    ``identified`` says that it has an id by which a second copy is recognised. ``connect`` opens a separate client.
    """

    listener: str
    connect: Callable[[], AsyncRedis]
    lease: Lease
    channel: str
    pattern: bool
    sink: Sink
    identified: Callable[[Message], bool]
    settings: ListenerSettings

    def __post_init__(self) -> None:
        self._backoff = Backoff.of(f"listening to the channel {self.channel}", self.settings)
        self._journal = Backoff.of(f"journalling what {self.channel} brought", self.settings)
        self._buffer = Buffer(max_bytes=self.settings.buffer_bytes)
        self._doubtful: list[Message] = []
        self._in_doubt = 0
        """Bytes of these."""
        self._heard = 0.0
        self._state = "starting"

    def status(self) -> Mapping[str, Any]:
        """``state``: ``active``, or ``standby`` while another process listens; both are ready."""
        trouble = self._backoff.trouble or self._journal.trouble
        if self._buffer.full:
            trouble = f"the buffer of {self.settings.buffer_bytes} bytes is full; the channel is not read: {trouble}"
        return {
            "ready": self._state in {"active", "standby"},
            "state": self._state,
            "channel": self.channel,
            "buffered": len(self._buffer),
            "buffered_bytes": self._buffer.bytes,
            **({"degraded": trouble} if trouble else {}),
        }

    async def run(self) -> None:
        """Listen until cancelled; buffered messages are then passed on for up to two seconds."""
        handing_on = asyncio.create_task(self._hand_on())
        try:
            while True:
                try:
                    await self._stand_by()
                    await self._listen()
                except (TransientError, Backpressure, ResponseError) as error:
                    if self._state == "active":
                        self._state = "starting"
                    metrics.retries.labels(self.listener).inc()
                    await self._backoff.after(error)
        finally:
            await self._stop(handing_on)

    async def _stand_by(self) -> None:
        """Return when this process has the lease of the channel: of several listeners one receives."""
        if self.lease.token and await self._renew():
            return
        while not await self.lease.acquire():
            if self._state != "standby":
                log.info("another process listens, standing by", listener=self.listener, channel=self.channel)
                self._state = "standby"
            self._backoff.worked()
            await asyncio.sleep(self.settings.lease_seconds / 5 * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        if self._state == "standby":
            log.warning(
                "taking over; what was published since the last listener was active is gone",
                listener=self.listener,
                channel=self.channel,
                token=self.lease.token,
            )

    async def _listen(self) -> None:
        """Receive messages until the subscription ends or the lease is lost; raises what ended it.

        Messages that have been received are still written to the journal.
        """
        async with self._subscribed() as subscription:
            self._note_gap()
            self._state = "active"
            self._backoff.worked()
            reading = asyncio.create_task(self._read(subscription))
            holding = asyncio.create_task(self._hold())
            try:
                await asyncio.wait({reading, holding}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await ended(reading, holding)
                await self._drain(subscription)
                if self._doubtful and not self.lease.token:
                    self._leave()
        self._state = "starting"
        for task in (reading, holding):
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    @asynccontextmanager
    async def _subscribed(self) -> AsyncIterator[PubSub]:
        """Subscribe on a connection of its own, and yield once Redis has confirmed it."""
        client = self.connect()
        client.set_retry(Retry(NoBackoff(), 0))  # a silent reconnect would hide the gap
        subscription = client.pubsub()
        try:
            with translated():
                subscribe = subscription.psubscribe if self.pattern else subscription.subscribe
                await subscribe(self.channel)
                confirmation = await subscription.get_message(timeout=_SILENT_SECONDS)
            if confirmation is None:
                raise TransientError(f"Redis did not confirm the subscription to {self.channel}")
            yield subscription
        finally:
            with contextlib.suppress(Exception):
                await subscription.aclose()  # type: ignore[no-untyped-call]
            with contextlib.suppress(Exception):
                await client.aclose()

    async def _hold(self) -> None:
        """Keep the lease; ends when another has it. While Redis does not say whose it is, what comes is in doubt."""
        while True:
            try:
                if not await self._renew():
                    return
            except (TransientError, Backpressure) as error:
                self._backoff.failed(error)
            else:
                self._backoff.worked()
                if self._doubtful:
                    continue
            await asyncio.sleep(self.settings.lease_seconds / 3)

    async def _renew(self) -> bool:
        """Renew the lease, which also decides about the messages that came before, when it was in doubt."""
        count = len(self._doubtful)  # messages that come while the answer is on its way may belong to the next holder
        ours = await self.lease.renew()
        if ours:
            self._keep(*self._doubtful[:count])
            self._in_doubt -= sum(len(message.raw) for message in self._doubtful[:count])
            del self._doubtful[:count]
        else:
            self._heard = 0.0
            self._leave()
        return ours

    async def _read(self, subscription: PubSub) -> None:
        """Receive messages for ever; raises `TransientError` if Redis is silent, also to pings.

        While the buffer is full nothing is read: Redis keeps the messages, up to its own limit for a client.
        """
        self._heard = now()
        pinged = self._heard
        while True:
            await self._buffer.room()
            if self._in_doubt >= self.settings.buffer_bytes:
                await asyncio.sleep(self.settings.lease_seconds / 3)
                continue
            with translated():
                received = await subscription.get_message(timeout=_PING_SECONDS)
            moment = now()
            if received is not None:
                self._heard = moment
                self._receive(received)
                continue
            if moment - self._heard > _SILENT_SECONDS:
                raise TransientError(f"Redis has been silent for {moment - self._heard:.1f} s")
            if moment - pinged >= _PING_SECONDS:
                pinged = moment
                with translated():
                    await subscription.ping()

    async def _drain(self, subscription: PubSub) -> None:
        """Read what the server has already sent, as far as the connection still works."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_DRAIN_SECONDS):
                await (subscription.punsubscribe if self.pattern else subscription.unsubscribe)(self.channel)
                while subscription.subscribed:
                    received = await subscription.get_message(timeout=_DRAIN_SECONDS)
                    if received is not None:
                        self._receive(received)

    def _receive(self, received: Mapping[str, Any]) -> None:
        """Keep a message, or hold it back while the lease is in doubt.

        Another listener may be the active one then, and would write the message to the journal a second time.
        """
        if received["type"] not in {"message", "pmessage"}:
            return
        channel = received["channel"].decode(errors="replace")
        message = Message(raw=received["data"], key=str(uuid.uuid4()), origin=f"a message on the channel {channel}")
        if self.lease.certain:
            self._keep(message)
        else:
            self._doubtful.append(message)
            self._in_doubt += len(message.raw)

    def _keep(self, *messages: Message) -> None:
        for message in messages:
            self._buffer.put(message)

    def _leave(self) -> None:
        """Another process listens: leave it the messages that came when it may already have been listening."""
        identified = [message for message in self._doubtful if self.identified(message)]
        self._keep(*identified)
        left = len(self._doubtful) - len(identified)
        self._doubtful.clear()
        self._in_doubt = 0
        metrics.left_to_successor.labels(self.listener).inc(left)
        log.warning(
            "the lease was lost, another process listens",
            listener=self.listener,
            channel=self.channel,
            left_to_it=left,
        )

    def _note_gap(self) -> None:
        """Count and log the time without a subscription, in which messages were lost."""
        if not self._heard:
            return
        seconds = now() - self._heard
        metrics.gaps.labels(self.listener).inc()
        metrics.gap_seconds.labels(self.listener).inc(seconds)
        log.warning(
            "subscribed again; what was published in between is gone",
            listener=self.listener,
            channel=self.channel,
            gap_seconds=round(seconds, 3),
        )

    async def _hand_on(self) -> None:
        """Write received messages to the journal, in order, as often as it takes."""
        while True:
            batch = await self._buffer.peek(self.settings.batch, max_bytes=self.settings.batch_bytes)
            try:
                with metrics.emit_seconds.labels(self.listener).time():
                    await self.sink(batch)
            except (TransientError, Backpressure) as error:
                metrics.retries.labels(self.listener).inc()
                await self._journal.after(error)
            else:
                self._journal.worked()
                self._buffer.drop(len(batch))

    async def _stop(self, handing_on: asyncio.Task[None]) -> None:
        """Let another process listen, and write what was received to the journal while there is time."""
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self.lease.release(), 1)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._buffer.emptied(), _FLUSH_SECONDS)
        await ended(handing_on)
        if len(self._buffer) or self._doubtful:
            log.error(
                "stopped with messages that the journal did not take",
                listener=self.listener,
                channel=self.channel,
                messages=len(self._buffer) + len(self._doubtful),
            )
