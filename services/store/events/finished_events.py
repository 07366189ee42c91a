"""How events ended: the stream that whoever hears of the last run writes, as the file archiver reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import ResponseError

from services.store.connection import AsyncRedis, GroupGone, text, translated
from services.store.keys import Key, is_object
from services.store.unreadable import readable

GROUP: Final = "files"
_FORGET_IDLE_MS: Final = 3_600_000
FINISHED: Final = "sluice:finished"
"""The stream that gets one entry when everything that an event led to is final."""


@dataclass(frozen=True, slots=True)
class FinishedEvent:
    """One entry; ``raw`` is what it says."""

    position: str
    identity: str
    raw: bytes


class FinishedEvents:
    """Reads the stream in the group ``files``, as ``consumer``. Raises `TransientError` and `Backpressure`.

    Each entry's field ``finished`` is a JSON object with ``identity``, ``ok``, ``matched``, ``runs`` and ``dead``.
    """

    def __init__(
        self, redis: AsyncRedis, *, consumer: str, group: str = GROUP, claim_idle_seconds: float = 5.0
    ) -> None:
        self._redis = redis
        self._consumer = consumer
        self._group = group
        self.claim_idle_seconds = claim_idle_seconds
        """An entry is noted and acknowledged in a fraction of this; a consumer that has it longer has ended."""

    async def read(self, *, count: int, block_seconds: float) -> list[FinishedEvent]:
        """Entries that no consumer was given, in order; waits for one."""
        try:
            with translated():
                answer: Any = await self._redis.xreadgroup(
                    self._group, self._consumer, {FINISHED: ">"}, count=count, block=max(1, int(block_seconds * 1000))
                )
        except GroupGone:
            await self._create()
            return []
        return list(readable(FINISHED, _ending, answer[0][1] if answer else []))

    async def claim(self, *, count: int) -> list[FinishedEvent]:
        """Entries whose consumer has been silent, now this one's."""
        try:
            with translated():
                answer: Any = await self._redis.xautoclaim(
                    FINISHED,
                    self._group,
                    self._consumer,
                    min_idle_time=int(self.claim_idle_seconds * 1000),
                    count=count,
                )
        except GroupGone:
            await self._create()
            return []
        return list(readable(FINISHED, _ending, (entry for entry in answer[1] if entry[1] is not None)))

    async def acknowledge(self, endings: list[FinishedEvent]) -> None:
        """Be done with the entries."""
        if endings:
            with translated():
                await self._redis.xack(FINISHED, self._group, *(ending.position for ending in endings))

    async def forget_idle_consumers(self) -> None:
        """Take processes that are long gone out of the group."""
        try:
            with translated():
                for consumer in await self._redis.xinfo_consumers(FINISHED, self._group):
                    if int(consumer["pending"]) == 0 and int(consumer["idle"]) > _FORGET_IDLE_MS:
                        await self._redis.xgroup_delconsumer(FINISHED, self._group, consumer["name"])
        except (GroupGone, ResponseError):
            return

    async def _create(self) -> None:
        try:
            with translated():
                await self._redis.xgroup_create(FINISHED, self._group, id="0", mkstream=True)
        except ResponseError as busy:
            if not str(busy).startswith("BUSYGROUP"):
                raise


def _ending(entry: tuple[bytes, dict[bytes, bytes]]) -> FinishedEvent:
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
