"""Retries the failures of past events: failed runs start again, as by Prefect's Retry; dead letters are replayed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeVar

from events.errors import NotFound, Refused
from events.event import stored_event
from services.prefect_api.client import PrefectApi
from services.prefect_api.run_calls import try_again
from services.store.events.event_history import FAILURES, EventHistory
from services.store.events.history import History
from services.store.events.journal import Journal
from services.store.files.returns import Again, FileReturns

_DELETED: Final = "Deleted"
"""Name of the state that stands for a run that was deleted in Prefect."""

_AT_ONCE: Final = 50

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Retry:
    """The failures of one event that can be retried."""

    found: EventHistory
    runs: tuple[str, ...]
    rules: tuple[str, ...]
    """Rules with an open dead letter of the event, or whose run was deleted: they are evaluated on the event again."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing failed."""
        return not self.runs and not self.rules


@dataclass(frozen=True, slots=True)
class NotReplayed:
    """An event that was not replayed."""

    event_id: str
    reason: str


class Retries:
    """Finds and retries failures; files are moved back first. Raises `TransientError` or `Backpressure`."""

    def __init__(
        self, *, history: History, journal: Journal, returns: FileReturns, prefect: Callable[[], Awaitable[PrefectApi]]
    ) -> None:
        self._history = history
        self._journal = journal
        self._returns = returns
        self._prefect = prefect

    async def find(self, identity: str, *, named: bool, only: Sequence[str] = ()) -> Retry:
        """Return the failures of the event; a cancelled run counts only if somebody has ``named`` the event."""
        found = await self._history.get(identity)
        if found is None:
            raise NotFound(f"the event {identity} is not known (any more)")
        types = FAILURES | ({"CANCELLED"} if named else set())
        bad = [run for run in found.runs if run.state in types and (not only or run.rule in only)]
        gone = {run.rule for run in bad if run.states[-1].name == _DELETED}
        well = {run.rule for run in found.runs if run.state == "COMPLETED"}
        buried = {letter.rule for letter in found.dead if letter.rule and letter.rule not in well}
        rules = {rule for rule in gone | buried if not only or rule in only}
        return Retry(found, tuple(run.run_id for run in bad if run.rule not in rules), tuple(sorted(rules)))

    async def start(
        self, retries: Sequence[Retry], *, by: str | None, per_second: float = 100.0
    ) -> tuple[list[Retry], list[NotReplayed]]:
        """Retry in the order of the events; return what was started, and the events that were not replayed."""
        started: list[Retry] = []
        refused: list[NotReplayed] = []
        size = max(1, min(_AT_ONCE, int(per_second)))
        for first in range(0, len(retries), size):
            if first:
                await asyncio.sleep(size / per_second)
            part = retries[first : first + size]
            reasons = await self._start(part, by)
            started += [retry for index, retry in enumerate(part) if index not in reasons]
            refused += [NotReplayed(part[index].found.id, reason) for index, reason in sorted(reasons.items())]
        return started, refused

    async def _start(self, part: Sequence[Retry], by: str | None) -> dict[int, str]:
        """Retry side by side, but journal in order; return why some were not replayed, by their indexes."""
        reasons: dict[int, str] = {}

        async def told(index: int, call: Awaitable[T]) -> T | None:
            try:
                return await call
            except (Refused, NotFound) as error:
                reasons[index] = str(error)
                return None

        returned = (told(index, self._bring_back(retry, by)) for index, retry in enumerate(part))
        for index, has_file in enumerate(await asyncio.gather(*returned)):
            if has_file is False and part[index].rules:
                await told(index, self._judge_again(part[index]))
        left = [(index, retry) for index, retry in enumerate(part) if index not in reasons]
        await asyncio.gather(*(told(index, self._run_again(retry, by)) for index, retry in left))
        return reasons

    async def _bring_back(self, retry: Retry, by: str | None) -> bool:
        again = Again(only=retry.rules) if retry.rules else None
        return await self._returns.bring_back(retry.found.identity, runs=retry.runs, again=again, by=by)

    async def _run_again(self, retry: Retry, by: str | None) -> None:
        for run_id in retry.runs:
            await try_again(await self._prefect(), run_id, reason=f"Tried again by {by or 'a replay'}")

    async def _judge_again(self, retry: Retry) -> None:
        found = retry.found
        if found.event is None:
            raise NotFound("the journal no longer holds the event, so the rules cannot be evaluated on it again")
        received = found.received or datetime.now(UTC)
        entry = (stored_event(found.event), received.isoformat(), found.listener)
        await self._journal.append_again([entry], only=retry.rules)
