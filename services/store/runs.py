"""The runs that Sluice created: whose events they are, which are open, and how many a rule has active."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from services.store.connection import AsyncRedis, translated
from services.store.journal import text

RUN: Final = "sluice:run:"
"""Prefix of a run's hash: ``e`` its events as JSON [[identity, position]], ``r`` rule, ``d`` deployment, ``t`` the
effect's token, ``s`` the last state on record as ``<ms> <TYPE>``."""

RUNS: Final = "sluice:runs"
"""The open runs, each with the time (ms) at which Prefect is asked about it if nothing was heard."""

CONTACT: Final = "sluice:runs:contact"
"""When (seconds since the epoch) all that Prefect had to say was last known."""

ACTIVE: Final = "sluice:active:"
"""Prefix of the set of a rule's open runs."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run and where it comes from."""

    run_id: str
    events: tuple[tuple[str, str], ...]
    """The identity of each event and its position in the journal."""
    rule: str
    deployment: str
    state: str | None


class Runs:
    """Reads what `services.store.progress` writes; raises `TransientError` or `Backpressure`."""

    def __init__(self, redis: AsyncRedis) -> None:
        self._redis = redis

    async def get(self, run_id: str) -> RunRecord | None:
        """The run, if Sluice created it and still remembers it."""
        with translated():
            fields = await self._redis.hgetall(RUN + run_id)
        if not fields:
            return None
        state = fields.get(b"s")
        return RunRecord(
            run_id=run_id,
            events=tuple((identity, position) for identity, position in json.loads(fields[b"e"])),
            rule=text(fields[b"r"]),
            deployment=text(fields[b"d"]),
            state=text(state).partition(" ")[2] if state else None,
        )

    async def due(self, now_ms: int, *, limit: int) -> list[str]:
        """Open runs that Prefect should be asked about, the most overdue first."""
        with translated():
            found: list[Any] = await self._redis.zrangebyscore(RUNS, "-inf", now_ms, start=0, num=limit)
        return [text(run_id) for run_id in found]

    async def ask_again(self, run_ids: Sequence[str], *, at_ms: int) -> None:
        """Ask about open runs at ``at_ms`` next; those that have ended meanwhile stay out."""
        if run_ids:
            with translated():
                await self._redis.zadd(RUNS, dict.fromkeys(run_ids, at_ms), xx=True)

    async def active(self, rule: str) -> int:
        """How many runs of ``rule`` are open."""
        with translated():
            return int(await self._redis.scard(ACTIVE + rule))

    async def open_count(self) -> int:
        """How many runs of all rules are open."""
        with translated():
            return int(await self._redis.zcard(RUNS))

    async def last_contact(self) -> float | None:
        """When all that Prefect had to say was last known, in seconds since the epoch."""
        with translated():
            stored = await self._redis.get(CONTACT)
        return None if stored is None else float(text(stored))

    async def contact(self, seconds: float) -> None:
        """Note that all that Prefect has to say is known."""
        with translated():
            await self._redis.set(CONTACT, seconds)
