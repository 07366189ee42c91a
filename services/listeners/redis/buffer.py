"""The memory between a pub/sub channel and the journal, bounded by bytes."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Sequence

from services.listeners.message_intake import Message


class Buffer:
    """Messages in the order of their receipt; one puts, one takes.

    `room` enforces ``max_bytes``: the last message that was admitted may exceed it.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self._messages: deque[Message] = deque()
        self._bytes = 0
        self._max_bytes = max_bytes
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._has_room = asyncio.Event()
        self._has_room.set()

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def bytes(self) -> int:
        """The size of all messages."""
        return self._bytes

    @property
    def full(self) -> bool:
        """Whether `room` makes its caller wait."""
        return self._bytes >= self._max_bytes

    def put(self, message: Message) -> None:
        """Add a message at the end, full or not."""
        self._messages.append(message)
        self._weigh(len(message.raw))

    async def peek(self, count: int, *, max_bytes: int) -> Sequence[Message]:
        """The first messages, at least one, up to ``count`` and about ``max_bytes``, which stay until `drop`."""
        await self._filled.wait()
        batch = []
        weight = 0
        for message in itertools.islice(self._messages, count):
            batch.append(message)
            weight += len(message.raw)
            if weight >= max_bytes:
                break
        return batch

    def drop(self, count: int) -> None:
        """Remove the first ``count`` messages."""
        self._weigh(-sum(len(self._messages.popleft().raw) for _ in range(count)))

    async def room(self) -> None:
        """Wait until there is room."""
        await self._has_room.wait()

    async def emptied(self) -> None:
        """Wait until nothing is left."""
        await self._emptied.wait()

    def _weigh(self, difference: int) -> None:
        """Change the number of bytes, and set or clear the events that depend on it."""
        self._bytes += difference
        for event, holds in (
            (self._filled, bool(self._messages)),
            (self._emptied, not self._messages),
            (self._has_room, not self.full),
        ):
            if holds:
                event.set()
            else:
                event.clear()
