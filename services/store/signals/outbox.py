"""The outbox of the signals: outcomes that were recorded and are still to be told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from redis.exceptions import ResponseError

from services.store.connection import AsyncRedis, translated
from services.store.keys import Key
from services.store.signals.signal_record import from_ms
from services.store.signals.signal_scripts import OUTBOX
from services.store.unreadable import readable

GROUP: Final = "publishers"

_BATCH: Final = 100
_BLOCK_MS: Final = 2000
_CLAIM_IDLE_MS: Final = 30_000


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """A change of a signal's outcome, at the time when it was recorded."""

    position: str
    signal_id: str
    status: str
    at: datetime

    @property
    def nth(self) -> str:
        """What tells repetitions of one signal's outcome apart."""
        return self.position if self.status == "duplicate" else ""


class Outbox:
    """Read by any number of publishers, each outcome by one of them unless that one dies. Raises `TransientError`."""

    def __init__(self, redis: AsyncRedis, *, consumer: str) -> None:
        self._redis = redis
        self._consumer = consumer
        self._ready = False

    async def read(self) -> list[OutboxEntry]:
        """Some outcomes, waiting up to 2 s for the first; those that a dead publisher left come again after 30 s."""
        with translated():
            await self._prepare()
            try:
                _, left, *_ = await self._redis.xautoclaim(OUTBOX, GROUP, self._consumer, _CLAIM_IDLE_MS, count=_BATCH)
                entries: Any = left
                if not entries:
                    found: Any = await self._redis.xreadgroup(
                        GROUP, self._consumer, {OUTBOX: ">"}, count=_BATCH, block=_BLOCK_MS
                    )
                    entries = found[0][1] if found else []
            except ResponseError:
                self._ready = False  # the server was emptied
                raise
        return list(readable(OUTBOX, _told, ((position, fields) for position, fields in entries if fields)))

    async def done(self, told: Sequence[OutboxEntry]) -> None:
        """These are told: they leave the outbox."""
        if not told:
            return
        positions = [one.position for one in told]
        with translated():
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.xack(OUTBOX, GROUP, *positions)
                pipeline.xdel(OUTBOX, *positions)
                await pipeline.execute()

    async def _prepare(self) -> None:
        if self._ready:
            return
        try:
            await self._redis.xgroup_create(OUTBOX, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        self._ready = True


def _told(entry: tuple[bytes, dict[bytes, bytes]]) -> OutboxEntry:
    place, fields = entry[0].decode(), entry[1]
    return OutboxEntry(
        position=place,
        signal_id=fields[b"id"].decode(),
        status=fields[b"status"].decode(),
        at=from_ms(int(place.partition("-")[0])),
    )


KEYS: Final = (
    Key(
        OUTBOX,
        "stream",
        "outcome of a signal that is not published yet",
        "until it is published",
        lambda fields: _told((b"0-0", fields)),
    ),
)
