"""Replays past events: to fill gaps (repair), or to do everything a second time on purpose (rerun)."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from events.action import RunDeployment
from events.errors import NotFound, Refused
from events.event import Event
from events.identity import id_of
from events.rule import Verdict
from services.prefect_api.client import PrefectApi
from services.routing.retries import NotReplayed, Retries, Retry
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


@dataclass(slots=True)
class Replayed:
    """What a replay has done."""

    events: int
    """Number of events that were journalled again."""
    retried: list[Retry]
    refused: list[NotReplayed]

    @property
    def runs(self) -> int:
        """Number of runs that were started again."""
        return sum(len(retry.runs) for retry in self.retried)


class Replay:
    """Journals past events again; the router handles them like any event."""

    def __init__(
        self,
        *,
        journal: Journal,
        history: History,
        finder: EventFinder,
        returns: FileReturns,
        prefect: Callable[[], Awaitable[PrefectApi]],
    ) -> None:
        self._journal = journal
        self._history = history
        self._finder = finder
        self._returns = returns
        self._retries = Retries(history=history, journal=journal, returns=returns, prefect=prefect)

    async def select(
        self, names: Sequence[str], query: Query | None, *, source: str | None = None
    ) -> list[tuple[str, str]]:
        """Return identities and positions of events, oldest first; ``source`` chooses where several share an id.

        Raises `NotFound` with a name that matches no event (see `EventFinder`), and `Refused` for one that matches
        several.
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

    async def failures(
        self, chosen: Sequence[tuple[str, str]], *, named: bool, only: Sequence[str] = ()
    ) -> tuple[list[Retry], list[str]]:
        """Return the failures of the chosen events, and the positions of the events without any.

        A run that was cancelled counts only if somebody has ``named`` the events.
        """
        found = [await self._retries.find(identity, named=named, only=only) for identity, _ in chosen]
        retries = [retry for retry in found if not retry.is_empty]
        failed = {retry.found.identity for retry in retries}
        return retries, [position for identity, position in chosen if identity not in failed]

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
        retries: Sequence[Retry] = (),
        only: Sequence[str] = (),
        salt: str | None = None,
        per_second: float = 100.0,
        by: str | None = None,
        progress: Callable[[int], None] = lambda _: None,
    ) -> Replayed:
        """Start what failed again, and journal the events at the positions again, in order, at most ``per_second``.

        With a ``salt`` it is a rerun, for which the events' files are moved back. A second call with the same salt
        repeats no effect of the first.
        """
        replayed = Replayed(0, [], [])
        replayed.retried, replayed.refused = await self._retries.start(retries, by=by, per_second=per_second)
        done = 0
        chunk = max(1, min(_CHUNK, int(per_second * _SLICE_SECONDS)))
        began = time.monotonic()
        for start in range(0, len(positions), chunk):
            entries = list((await self._journal.fetch(positions[start : start + chunk])).values())
            events, refused = entries, list[NotReplayed]()
            if salt is not None:  # a repair starts no run again that has had its file
                events, refused = await self._without_files(entries, Again(only=tuple(only), salt=salt), by)
            again = [(entry.event, entry.received, entry.listener) for entry in events]
            await self._journal.append_again(again, only=only, salt=salt)
            replayed.events += len(entries) - len(refused)
            replayed.refused += refused
            done += len(entries)
            progress(done)
            await asyncio.sleep(max(0.0, began + done / per_second - time.monotonic()))
        return replayed

    async def _without_files(
        self, entries: Sequence[JournalEntry], again: Again, by: str | None
    ) -> tuple[list[JournalEntry], list[NotReplayed]]:
        """Return the entries without an archived file, and refusals; entries with one were handled before."""
        answers = await asyncio.gather(*(self._with_file(entry.event.identity, again, by) for entry in entries))
        without = [entry for entry, answer in zip(entries, answers, strict=True) if answer is False]
        return without, [answer for answer in answers if isinstance(answer, NotReplayed)]

    async def _with_file(self, identity: str, again: Again, by: str | None) -> bool | NotReplayed:
        try:
            return await self._returns.bring_back(identity, again=again, by=by)
        except Refused as error:
            return NotReplayed(id_of(identity), error.reason)


def new_salt() -> str:
    """Return a salt for one rerun."""
    return uuid.uuid4().hex[:8]


def _add(forecast: Forecast, verdict: Verdict, there: Counter[tuple[str, str]]) -> None:
    """Count in the forecast what a verdict would do; ``there`` are existing runs, each of which counts once."""
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
