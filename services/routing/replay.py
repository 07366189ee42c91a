"""Replays past events: to fill gaps (repair), or to do everything a second time on purpose (rerun)."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from events.action import RunDeployment
from events.errors import NotFound
from events.event import Event
from events.rule import Verdict
from services.store.events.history import History, Query
from services.store.events.journal import Journal

_CHUNK: Final = 200
_SLICE_SECONDS: Final = 0.2


@dataclass(slots=True)
class Forecast:
    """What a replay would do, by rule, with the present rules and without windows."""

    events: int = 0
    runs: Counter[str] = field(default_factory=Counter)
    already: Counter[str] = field(default_factory=Counter)
    """Number of runs that exist already."""
    signals: Counter[str] = field(default_factory=Counter)
    gathered: Counter[str] = field(default_factory=Counter)
    """Number of events that a window would gather."""
    errors: Counter[str] = field(default_factory=Counter)
    """Number of events that would become dead letters."""

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each rule with effects."""
        columns = {
            "runs": self.runs,
            "already_there": self.already,
            "signals": self.signals,
            "gathered": self.gathered,
            "errors": self.errors,
        }
        rules = sorted({rule for counter in columns.values() for rule in counter})
        return [{"rule": rule} | {name: counter[rule] for name, counter in columns.items()} for rule in rules]


class Replay:
    """Puts past events into the journal once more; the router handles them like any event."""

    def __init__(self, *, journal: Journal, history: History) -> None:
        self._journal = journal
        self._history = history

    async def select(self, event_ids: Sequence[str], query: Query | None, *, source: str | None = None) -> list[str]:
        """Return the positions of the events, oldest first; ``source`` chooses where several share an id.

        Raises `NotFound` with an id that cannot be replayed, and `RejectedEvent` for one that several events have.
        """
        if query is not None:
            return [found.position async for found in self._history.walk(query)][::-1]
        positions = []
        for event_id in event_ids:
            found = await self._history.get(await self._history.choose(event_id, source))
            if found is None:
                raise NotFound(f"the event {event_id!r} is not known (any more)")
            if found.event is None:
                raise NotFound(f"the event {event_id!r} is known, but the journal no longer holds it")
            positions.append(found.position)
        return positions

    async def forecast(
        self,
        positions: Sequence[str],
        judge: Callable[[Event], Sequence[Verdict]],
        *,
        only: Sequence[str] = (),
        rerun: bool = False,
    ) -> Forecast:
        """Count the effects of `replay`; starts nothing."""
        forecast = Forecast()
        for start in range(0, len(positions), _CHUNK):
            for entry in (await self._journal.fetch(positions[start : start + _CHUNK])).values():
                forecast.events += 1
                there: Counter[tuple[str, str]] = Counter()
                if not rerun and (known := await self._history.get(entry.event.identity)) is not None:
                    there.update((run.rule, run.deployment) for run in known.runs)
                for verdict in judge(entry.event):
                    if verdict.matched and (not only or verdict.rule in only):
                        _add(forecast, verdict, there)
            await asyncio.sleep(0)
        return forecast

    async def replay(
        self,
        positions: Sequence[str],
        *,
        only: Sequence[str] = (),
        salt: str | None = None,
        per_second: float = 100.0,
        progress: Callable[[int], None] = lambda _: None,
    ) -> int:
        """Journal the events again, in order, at most ``per_second``; return the number of events found.

        With a ``salt`` it is a rerun. A second call with the same salt repeats no effect of the first.
        """
        done = 0
        chunk = max(1, min(_CHUNK, int(per_second * _SLICE_SECONDS)))
        began = time.monotonic()
        for start in range(0, len(positions), chunk):
            entries = await self._journal.fetch(positions[start : start + chunk])
            again = [(entry.event, entry.received, entry.listener) for entry in entries.values()]
            await self._journal.append_again(again, only=only, salt=salt)
            done += len(again)
            progress(done)
            await asyncio.sleep(max(0.0, began + done / per_second - time.monotonic()))
        return done


def new_salt() -> str:
    """Return a salt for one rerun."""
    return uuid.uuid4().hex[:8]


def _add(forecast: Forecast, verdict: Verdict, there: Counter[tuple[str, str]]) -> None:
    rule = verdict.rule
    if verdict.error is not None:
        forecast.errors[rule] += 1
    elif verdict.keys is not None and not verdict.actions:
        forecast.gathered[rule] += 1
    for action in verdict.actions:
        if not isinstance(action, RunDeployment):
            forecast.signals[rule] += 1
        elif there[rule, action.deployment] > 0:
            there[rule, action.deployment] -= 1
            forecast.already[rule] += 1
        else:
            forecast.runs[rule] += 1
