"""Reads the stream of finished events, which has one entry for each event of which every effect is final."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.store.connection import AsyncRedis, text
from services.store.consumer_group import ConsumerGroup, Entry
from services.store.keys import Key, is_object
from services.store.unreadable import readable

GROUP: Final = "files"
FINISHED: Final = "sluice:finished"
"""The stream that gets one entry when all effects of an event are final."""


@dataclass(frozen=True, slots=True)
class FinishedEvent:
    """One entry; ``raw`` is its content."""

    position: str
    identity: str
    raw: bytes


class FinishedEvents:
    """Reads the stream in the group ``files``, as ``consumer``. Raises `TransientError` and `Backpressure`.

    Each entry's field ``finished`` is a JSON object with ``identity``, ``ok``, ``matched``, ``runs`` and ``dead``.
    """

    def __init__(self, redis: AsyncRedis, *, consumer: str, claim_idle_seconds: float = 5.0) -> None:
        self._readers = ConsumerGroup(redis, FINISHED, GROUP, consumer=consumer, claim_idle_seconds=claim_idle_seconds)
        self.claim_idle_seconds = claim_idle_seconds
        """An entry is recorded and acknowledged in a fraction of this; a consumer that has it longer has ended."""

    async def read(self, *, count: int, block_seconds: float) -> list[FinishedEvent]:
        """Return entries that no consumer has read, in order; waits for one."""
        return list(readable(FINISHED, _ending, await self._readers.read(count=count, block_seconds=block_seconds)))

    async def claim(self, *, count: int) -> list[FinishedEvent]:
        """Claim entries of silent consumers for this one."""
        return list(readable(FINISHED, _ending, await self._readers.claim(count=count)))

    async def acknowledge(self, endings: list[FinishedEvent]) -> None:
        """Acknowledge the entries."""
        await self._readers.acknowledge([ending.position for ending in endings])


def _ending(entry: Entry) -> FinishedEvent:
    position, fields = entry
    finished = is_object(fields[b"finished"])
    identity = finished["identity"]
    if not isinstance(identity, str):
        raise TypeError("not the end of an event")
    return FinishedEvent(text(position), identity, fields[b"finished"])


KEYS: Final = (
    Key(
        FINISHED,
        "stream",
        "event that is finished",
        "a day, and until the file archiver has acknowledged it",
        lambda fields: _ending((b"0-0", fields)),
    ),
)
