"""The canary: sends a file and a message through all of Sluice at an interval, and times each step."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog

from config.canary import STREAM, canary_watch
from config.health import CANARY, CanarySettings
from events.errors import Backpressure, TransientError
from events.identity import identity_of
from services.common.backoff import Backoff, heed_cancellation
from services.store.canary.flights import CANARY_STEPS, CanaryFlight, CanaryRecords, Remains
from services.store.connection import AsyncRedis
from services.store.events.event_history import EventHistory
from services.store.events.history import History
from services.store.files.ledger import Ledger, source_of
from services.store.lease import Lease
from services.store.redis_errors import translated
from services.store.signals.signal_queries import SignalQueries
from services.store.signals.waits import Waits

LEASE_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 0.1
_TURN_SECONDS: Final = 1.0
_AGAIN_SECONDS: Final = 30.0
"""Pause before the next canary after one that failed, if the interval is longer."""

_LEDGER_SECONDS: Final = 7 * 86_400
"""How long the ledger is kept of a home that no longer exists, such as a container's."""

T = TypeVar("T")
log = structlog.get_logger()


class _StepFailed(Exception):
    """The step did not happen in time."""


@dataclass
class _Flight:
    """A canary on its way."""

    name: str
    deadline: float
    seconds: dict[str, float] = field(default_factory=dict)
    identity: str | None = None
    history: EventHistory | None = None

    def remains(self) -> Remains:
        """What the canary has left in Redis and Prefect, to be removed when the next one is sent."""
        history = self.history
        runs = [] if history is None else [run.run_id for run in history.runs]
        return Remains(
            signal_id=self.name,
            rule=CANARY,
            identity=self.identity,
            position=None if history is None else history.position,
            run_ids=runs,
        )


@dataclass(kw_only=True, eq=False)
class Canary:
    """Sends canaries, with the file in its own home, while this instance holds the lease."""

    settings: CanarySettings
    redis: AsyncRedis
    home: Path
    ledger: Ledger
    history: History
    instance: str

    def __post_init__(self) -> None:
        ((self._watch, source),) = canary_watch(self.home).items()
        self._folder = source.path
        self._signals = SignalQueries(self.redis)
        self._waits = Waits(self.redis)
        self._records = CanaryRecords(self.redis)
        self._lease = Lease(self.redis, "canary", ttl_seconds=LEASE_SECONDS)
        self._renew_at = 0.0
        self._trouble = Backoff("send the canary", first_seconds=1, longest_seconds=10)
        self._left: Remains | None = None
        """Remains of a failed canary, kept for inspection until the next one is sent."""

    def status(self) -> Mapping[str, Any]:
        """Whether this instance sends the canary."""
        return {"sends": self._lease.certain}

    async def run(self) -> None:
        """Send canaries until cancelled, whenever this process holds the lease."""
        next_at = 0.0
        try:
            while True:
                try:
                    if await self._holds() and time.monotonic() >= next_at:
                        well = await self._fly()
                        interval = self.settings.interval_seconds
                        next_at = time.monotonic() + (interval if well else min(interval, _AGAIN_SECONDS))
                    self._trouble.worked()
                except (TransientError, Backpressure) as error:
                    await self._trouble.after(error)
                await asyncio.sleep(_TURN_SECONDS)
                heed_cancellation()
        finally:
            await asyncio.wait_for(self._lease.release(), 1)

    async def _holds(self) -> bool:
        now = time.monotonic()
        if self._lease.token and now < self._renew_at:
            return self._lease.certain
        self._renew_at = now + LEASE_SECONDS / 4
        return await (self._lease.renew() if self._lease.token else self._lease.acquire())

    async def _fly(self) -> bool:
        """Send one canary; return whether every step happened."""
        if self._left is not None:
            await self._records.leave(self._left)
            self._left = None
        flight = _Flight(f"{CANARY}-{uuid.uuid4().hex[:12]}", time.monotonic() + self.settings.timeout_seconds)
        failed = None
        try:
            await self._steps(flight)
        except _StepFailed as step:
            failed = str(step)
            log.warning("the canary failed", step=failed, problem=CANARY_STEPS[failed], canary=flight.name)
            with suppress(OSError):
                await asyncio.to_thread((self._folder / flight.name).unlink, missing_ok=True)
        history = flight.history
        run_id = history.runs[0].run_id if history is not None and history.runs else None
        event_id = None if history is None else history.id
        await self._records.ended(
            CanaryFlight(
                at=time.time(),
                failed=failed,
                seconds=flight.seconds,
                instance=self.instance,
                run_id=run_id,
                event_id=event_id,
            )
        )
        if failed is None:
            await self._records.leave(flight.remains())
        else:
            self._left = flight.remains()
        await self.ledger.outlive(self._watch, seconds=_LEDGER_SECONDS)
        return failed is None

    async def _steps(self, flight: _Flight) -> None:
        """Send the canary through every step, as a file and a message; raises `_StepFailed` with a late step."""
        path = self._folder / flight.name
        try:
            await asyncio.to_thread(_write, path)
        except OSError as error:
            log.warning("the canary's file cannot be written", path=str(path), error=error.strerror)
            raise _StepFailed("arrive") from error
        event_id = await self._reached(
            flight, "arrive", lambda: self.ledger.event_in_flight(self._watch, flight.name.encode())
        )
        flight.identity = identity_of(source_of(self._watch), event_id)
        await self._reached(flight, "rule", lambda: self._event(flight, lambda event: event.judged > 0))
        await self._reached(flight, "run", lambda: self._event(flight, lambda event: bool(event.runs)))
        await self._reached(flight, "pause", lambda: self._waits.memos_for(flight.name))
        message = json.dumps({"id": flight.name, "key": flight.name, "by": CANARY})
        with translated():
            await self.redis.xadd(STREAM, {"event": message})
        await self._reached(flight, "message", lambda: self._signals.get(flight.name))
        await self._reached(flight, "resume", lambda: self._is_applied(flight.name))
        await self._reached(flight, "done", lambda: self._event(flight, lambda event: event.outcome == "done"))
        await self._reached(flight, "archive", lambda: asyncio.to_thread(lambda: not path.exists()))

    async def _reached(self, flight: _Flight, step: str, probe: Callable[[], Awaitable[T | None]]) -> T:
        """Return the first true result of ``probe``; raises `_StepFailed` if there is none in time."""
        began = time.monotonic()
        while True:
            try:
                answer = await probe()
                await self._holds()
            except (TransientError, Backpressure):  # if Redis is away, this step does not happen
                answer = None
            if answer:
                flight.seconds[step] = round(time.monotonic() - began, 3)
                return answer
            if time.monotonic() > flight.deadline:
                raise _StepFailed(step)
            await asyncio.sleep(_LOOK_SECONDS)
            heed_cancellation()

    async def _event(self, flight: _Flight, so_far: Callable[[EventHistory], bool]) -> bool:
        flight.history = await self.history.get(str(flight.identity)) or flight.history
        return flight.history is not None and so_far(flight.history)

    async def _is_applied(self, signal_id: str) -> bool:
        record = await self._signals.get(signal_id)
        return record is not None and record.status == "applied"


def _write(path: Path) -> None:
    """Write the file under another name first, so that it is complete when it arrives."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for old in path.parent.glob(f"{CANARY}-*"):  # left by a process that was killed while its canary was on its way
        old.unlink(missing_ok=True)
    draft = path.with_name(f".{path.name}")
    draft.write_text("This file is Sluice's own: it shows that files are taken.\n", encoding="utf-8")
    draft.rename(path)
