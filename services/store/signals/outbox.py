"""The outbox of the signals: outcomes that are recorded and not published yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.store.connection import AsyncRedis
from services.store.consumer_group import ConsumerGroup, Entry
from services.store.keys import Key
from services.store.signals.signal_keys import OUTBOX
from services.store.signals.signal_record import from_ms
from services.store.unreadable import readable

GROUP: Final = "publishers"

_BATCH: Final = 100
_BLOCK_SECONDS: Final = 2.0
_CLAIM_IDLE_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """A change of a signal's outcome, at the time when it was recorded."""

    position: str
    signal_id: str
    status: str
    at: datetime

    @property
    def nth(self) -> str:
        """A number that distinguishes repetitions of one signal's outcome."""
        return self.position if self.status == "duplicate" else ""


class Outbox:
    """Any number of publishers may read it; each outcome goes to one of them unless that one dies.

    Raises `TransientError`.
    """

    def __init__(self, redis: AsyncRedis, *, consumer: str) -> None:
        self._readers = ConsumerGroup(redis, OUTBOX, GROUP, consumer=consumer, claim_idle_seconds=_CLAIM_IDLE_SECONDS)

    async def read(self) -> list[OutboxEntry]:
        """Return at most 100 outcomes, in order; waits up to 2 s for one.

        Those of a dead publisher return after 30 s.
        """
        left = await self._readers.claim(count=_BATCH)
        return list(
            readable(OUTBOX, _entry, left or await self._readers.read(count=_BATCH, block_seconds=_BLOCK_SECONDS))
        )

    async def done(self, published: Sequence[OutboxEntry]) -> None:
        """Delete published outcomes from the outbox."""
        await self._readers.acknowledge([one.position for one in published], delete=True)


def _entry(entry: Entry) -> OutboxEntry:
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
        lambda fields: _entry((b"0-0", fields)),
    ),
)
