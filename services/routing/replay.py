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
from events.errors import NotFound, RejectedEvent
from events.event import Event
from events.identity import id_of
from events.rule import Verdict
from services.store.event_finder import EventFinder
from services.store.events.history import History, Query
from services.store.events.journal import Journal, JournalEntry
from services.store.files.returns import Again, FileReturns

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


@dataclass(frozen=True, slots=True)
class Refusal:
    """An event that was not replayed."""

    event_id: str
    reason: str


class Replay:
    """Puts past events into the journal once more; the router handles them like any event."""

    def __init__(self, *, journal: Journal, history: History, finder: EventFinder, returns: FileReturns) -> None:
        self._journal = journal
        self._history = history
        self._finder = finder
        self._returns = returns
        self.refused: list[Refusal] = []
        """Events whose files could not be brought back for a rerun."""

    async def select(
        self, names: Sequence[str], query: Query | None, *, source: str | None = None
    ) -> list[tuple[str, str]]:
        """Return identities and positions of events, oldest first; ``source`` chooses where several share an id.

        Raises `NotFound` with a name that no event is found by (see `EventFinder`), and `RejectedEvent` for one that
        fits several events.
        """
        if query is not None:
            return [(found.identity, found.position) async for found in self._history.walk(query)][::-1]
        chosen = []
        for name in names:
            found = await self._history.get(await self._finder.find(name, source))
            if found is None:
                raise NotFound(f"the event {name!r} is not known (any more)")
            chosen.append((found.identity, found.position))
        return chosen

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
        by: str | None = None,
        progress: Callable[[int], None] = lambda _: None,
    ) -> int:
        """Journal the events again, in order, at most ``per_second``; return the number of events found.

        With a ``salt`` it is a rerun, for which the events' files are brought back; see `refused`. A second call with
        the same salt repeats no effect of the first.
        """
        done = 0
        chunk = max(1, min(_CHUNK, int(per_second * _SLICE_SECONDS)))
        began = time.monotonic()
        for start in range(0, len(positions), chunk):
            entries = await self._journal.fetch(positions[start : start + chunk])
            events = list(entries.values())
            if salt is not None:  # a repair starts nothing again that has had its file
                events = await self._without_files(events, Again(only=tuple(only), salt=salt), by)
            again = [(entry.event, entry.received, entry.listener) for entry in events]
            await self._journal.append_again(again, only=only, salt=salt)
            done += len(entries)
            progress(done)
            await asyncio.sleep(max(0.0, began + done / per_second - time.monotonic()))
        return done

    async def _without_files(self, entries: Sequence[JournalEntry], again: Again, by: str | None) -> list[JournalEntry]:
        """The entries that are not about a file that was archived; the others are judged again with their files."""
        answers = await asyncio.gather(*(self._with_file(entry.event.identity, again, by) for entry in entries))
        return [entry for entry, has_file in zip(entries, answers, strict=True) if not has_file]

    async def _with_file(self, identity: str, again: Again, by: str | None) -> bool:
        try:
            return await self._returns.bring_back(identity, again=again, by=by)
        except RejectedEvent as error:
            self.refused.append(Refusal(id_of(identity), error.reason))
            return True


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
