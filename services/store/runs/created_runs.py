"""The runs that Sluice created: their events, which are open, and how many of a rule are active."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from services.store.connection import AsyncRedis, text
from services.store.keys import Key, is_position, is_uuid, scored
from services.store.unreadable import readable, reading

RUN: Final = "sluice:run:"
"""Prefix of a run's hash: ``e`` its events as JSON [[identity, position]], ``r`` rule, ``d`` deployment, ``t`` the
effect's token, ``s`` the last state on record as ``<ms> <TYPE>``, ``c`` when it was created and ``p`` when it
was planned to start, ``a`` and ``b`` since and until when it may begin
again (ms)."""

RUNS: Final = "sluice:runs"
"""The open runs, each with the time (ms) at which its state is read in Prefect if no event came."""

CONTACT: Final = "sluice:runs:contact"
"""When (seconds since the epoch) all states in Prefect were last known."""

ACTIVE: Final = "sluice:active:"
"""Prefix of the set of a rule's open runs."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run and its origin."""

    run_id: str
    events: tuple[tuple[str, str], ...]
    """Identity and position in the journal of each of its events."""
    rule: str
    deployment: str
    token: str
    """Token of the effect that it is."""
    state: str | None
    state_ms: int = 0
    """Since when it has been in the state, in milliseconds since the epoch."""


class CreatedRuns:
    """Reads the records that `services.store.event_transitions` writes; raises `TransientError` or `Backpressure`."""

    def __init__(self, redis: AsyncRedis) -> None:
        self._redis = redis

    async def get(self, run_id: str) -> RunRecord | None:
        """Return the run, if Sluice created it and its record still exists."""
        fields: Any = await self._redis.hgetall(RUN + run_id)
        if not fields:
            return None
        with reading(RUN + run_id):
            return _record(run_id, fields)

    async def due(self, now_ms: int, *, limit: int) -> list[str]:
        """Return open runs whose state should be read in Prefect, the most overdue first."""
        found: list[Any] = await self._redis.zrangebyscore(RUNS, "-inf", now_ms, start=0, num=limit)
        return list(readable(RUNS, is_uuid, found))

    async def ask_again(self, run_ids: Sequence[str], *, at_ms: int) -> None:
        """Schedule the next read of open runs for ``at_ms``; those that have ended meanwhile are left out."""
        if run_ids:
            await self._redis.zadd(RUNS, dict.fromkeys(run_ids, at_ms), xx=True)

    async def active(self, rule: str) -> int:
        """Return the number of open runs of ``rule``."""
        return int(await self._redis.scard(ACTIVE + rule))

    async def open_count(self) -> int:
        """Return the number of open runs of all rules."""
        return int(await self._redis.zcard(RUNS))

    async def last_contact(self) -> float | None:
        """Return when all states in Prefect were last known, in seconds since the epoch."""
        stored = await self._redis.get(CONTACT)
        with reading(CONTACT):
            return None if stored is None else _moment(stored)

    async def contact(self, seconds: float) -> None:
        """Record that all states in Prefect are known now."""
        await self._redis.set(CONTACT, seconds)


def _record(run_id: str, fields: Mapping[bytes, bytes]) -> RunRecord:
    state = text(fields[b"s"]) if b"s" in fields else None
    if state is not None and not re.fullmatch(r"\d{1,18} [A-Z]+", state):
        raise ValueError("not a state")
    return RunRecord(
        run_id=run_id,
        events=tuple((str(event_id), is_position(position)) for event_id, position in json.loads(fields[b"e"])),
        rule=text(fields[b"r"]),
        deployment=text(fields[b"d"]),
        token=text(fields[b"t"]),
        state=state.partition(" ")[2] if state else None,
        state_ms=int(state.partition(" ")[0]) if state else 0,
    )


def _is_record(fields: Mapping[bytes, bytes]) -> None:
    _record("", fields)
    [int(fields.get(name, 0)) for name in (b"a", b"b")]


def _moment(stored: bytes | str) -> float:
    """Clamp a time to the range of a datetime."""
    seconds = float(text(stored))
    datetime.fromtimestamp(seconds, UTC)
    return seconds


KEYS: Final = (
    Key(
        RUN + "*", "hash", "run that Sluice created", "history.retention_seconds after its end", _is_record, whole=True
    ),
    Key(RUNS, "zset", "id of an active run", "until the run is over", scored(is_uuid)),
    Key(CONTACT, "string", "time when all that Prefect had to say was known", "for good", _moment),
    Key(ACTIVE + "*", "set", "id of a rule's active run", "until the run is over", is_uuid),
)
