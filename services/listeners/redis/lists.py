"""The listener on a Redis list: elements move into a stream of ours, each under an id, and are read from there."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from redis.exceptions import ResponseError

from config.settings import ListenerSettings
from events.errors import Backpressure, TransientError
from services.common import metrics
from services.common.backoff import Backoff
from services.listeners.message_intake import Sink
from services.listeners.redis.stream import StreamListener
from services.store.connection import AsyncRedis
from services.store.events.inbound_streams import Inbound

_WAIT_SECONDS = 2
_BEHIND_SECONDS = 0.02


@dataclass(kw_only=True, eq=False)
class ListListener:
    """Takes elements from one ``side`` of ``list_key``; any number of listeners share a list.

    An element leaves the list and gets its id in one atomic step, so that a crash neither loses it nor accepts it
    twice. Equal elements are different messages.
    """

    listener: str
    redis: AsyncRedis
    list_key: str
    side: Literal["left", "right"]
    sink: Sink
    settings: ListenerSettings
    consumer: str

    def __post_init__(self) -> None:
        self._inbound = Inbound(self.redis, self.list_key, side=self.side)
        self._backoff = Backoff.of(f"reading the list {self.list_key}", self.settings)
        self._reader = StreamListener(
            listener=self.listener,
            redis=self.redis,
            stream=self._inbound.stream,
            sink=self.sink,
            settings=self.settings,
            consumer=self.consumer,
            key_prefix=self.list_key,
            delete=True,
        )

    def status(self) -> Mapping[str, Any]:
        """Return the stream's status, with problems of moving elements from the list to the stream."""
        return {**self._reader.status(), **self._backoff.status(list=self.list_key)}

    async def run(self) -> None:
        """Move and read until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._reader.run())
            tasks.create_task(self._move())

    async def _move(self) -> None:
        """Move elements of the list into its inbound stream, from which they are read like any stream."""
        while True:
            try:
                if await self._inbound.wait(_WAIT_SECONDS):
                    moved = await self._inbound.move(self.settings.batch, max_bytes=self.settings.batch_bytes)
                    if not moved:
                        await asyncio.sleep(_BEHIND_SECONDS)  # the reader is behind
                self._backoff.worked()
            except (TransientError, Backpressure, ResponseError) as error:
                metrics.retries.labels(self.listener).inc()
                await self._backoff.after(error)
