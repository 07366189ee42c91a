"""Events whose state in Redis was damaged: recorded before the data is quarantined, then evaluated again.

Only Redis has the effects that an event waits for, and the events that a run belongs to. If somebody overwrote them,
the rules are evaluated on the event once more, under the same keys: existing runs are found, and the event is finished
when all its effects are final.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, Literal

from services.store.connection import AsyncRedis, text
from services.store.events.finished_events import FINISHED
from services.store.events.known_events import KnownEvents
from services.store.events.open_effects import OPEN
from services.store.keys import Key, position_seconds
from services.store.runs.created_runs import RUN
from services.store.scripts import Script
from services.store.unreadable import FAULTS, readable

DAMAGED: Final = "sluice:damaged"
"""Set of the damaged states that are not repaired yet: ``event IDENTITY``, ``run ID``."""

_PAGE: Final = 1000
_TOGETHER: Final = 100

_JUDGE_AGAIN: Final = Script("events/judge_again")


def damaged_by(name: bytes) -> str | None:
    """Return what is damaged when the key ``name`` is quarantined or loses an element; None if nothing waits for it."""
    key = name.decode("utf-8", "replace")
    for prefix, what in ((OPEN, "event"), (RUN, "run")):
        if key.startswith(prefix):
            return f"{what} {key.removeprefix(prefix)}"
    return None


async def note_damage(redis: AsyncRedis, name: bytes) -> None:
    """Record the damage under the key ``name``, if something waits for it; raises `TransientError`."""
    damaged = damaged_by(name)
    if damaged is not None:
        await redis.sadd(DAMAGED, damaged)


class DamagedEvents:
    """The recorded damage. Raises `TransientError` or `Backpressure`."""

    def __init__(self, redis: AsyncRedis) -> None:
        self._redis = redis
        self._known = KnownEvents(redis)

    async def some(self) -> list[tuple[Literal["event", "run"], str]]:
        """Return some of the damage: ``event`` or ``run``, and the event's identity or the run's id."""
        found: Any = await self._redis.srandmember(DAMAGED, _TOGETHER)
        return list(readable(DAMAGED, _parsed, found))

    async def judge_again(self, what: str, name: str, identities: Sequence[str]) -> int:
        """Have the rules evaluated again on those events that are known and not finished; return their number.

        This repairs ``what`` and ``name`` (see `some`).
        """
        events: list[tuple[str, str]] = []
        for identity in identities:
            position = await self._known.position(identity)
            if position is not None and not await self._is_finished(identity, since_ms=_ms(position)):
                events.append((identity, position))
        return int(await _JUDGE_AGAIN(self._redis, mended=f"{what} {name}", events=events))

    async def _is_finished(self, identity: str, *, since_ms: int) -> bool:
        """Whether the stream of the finished events (of a day) has it."""
        low = f"{since_ms}-0"
        while True:
            rows: Any = await self._redis.xrange(FINISHED, min=low, count=_PAGE)
            if any(_names(fields, identity) for _, fields in rows):
                return True
            if len(rows) < _PAGE:
                return False
            low = f"({text(rows[-1][0])}"


def _ms(position: str) -> int:
    return int(position_seconds(position) * 1000)


def _names(fields: dict[bytes, bytes], identity: str) -> bool:
    try:
        return bool(json.loads(fields[b"finished"])["identity"] == identity)
    except FAULTS:
        return False


def _parsed(member: bytes) -> tuple[Literal["event", "run"], str]:
    what, _, name = text(member).partition(" ")
    match what:
        case "event" | "run":
            return what, name
        case _:
            raise ValueError("nothing that can be mended")


KEYS: Final = (Key(DAMAGED, "set", "event or run whose state was damaged", "until it is mended", _parsed),)
