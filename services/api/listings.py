"""Listings of events, runs, signals and dead letters: ``GET``, for tokens with the scope ``read``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Depends, Path, Query

from events.dead_letter import DeadLetter
from events.errors import ConfigError, NotFound
from services.api.paging import Cursor, Limit, Page, page, parts_of, patience
from services.api.rows import content_of, may_event, may_letter, may_run, may_signal, plain
from services.api.scopes import BEARER, Reader
from services.listings import signals as signal_listing
from services.listings.filters import LAST_SECOND, EventFilter, LetterFilter, RunAttributes, RunFilter, SignalFilter
from services.listings.rows import letter_row, whole_event
from services.store.connection import AsyncRedis
from services.store.dead_letters import DeadLetters
from services.store.event_transitions import EventTransitions
from services.store.events.history import History
from services.store.keys import is_position
from services.store.signals.signal_queries import SignalQueries

if TYPE_CHECKING:
    from services.prefect_api.client import PrefectApi

Source = Annotated[str | None, Query(max_length=256, description="Whose event, where several have the id")]
EventId = Annotated[str, Path(max_length=256)]
SignalId = Annotated[str, Path(max_length=300)]
LetterId = Annotated[str, Path(max_length=64)]
RunId = Annotated[str, Path(max_length=200, description="Its id or name")]


_MOST_AT_ONCE: Final = 10_000
"""Largest number of runs with the same start time for which a listing can be paged."""


@dataclass(frozen=True, kw_only=True)
class Listings:
    """The routes.

    ``prefect`` returns Prefect's API. Rows outside of a caller's limits are left out of lists, and are "not found" by
    id: a page may have fewer rows than its limit and still a ``next``.
    """

    redis: AsyncRedis
    history: History
    dead_letters: DeadLetters
    signal_queries: SignalQueries
    transitions: EventTransitions
    prefect: Callable[[], Awaitable[PrefectApi]]

    def router(self) -> APIRouter:
        """The routes, for the application."""
        router = APIRouter(dependencies=[BEARER])
        router.get("/events", tags=["events"], summary="The newest events first")(self.events)
        router.get("/events/{id:path}", tags=["events"], summary="One event, and all that became of it")(self.event)
        router.get("/runs", tags=["runs"], summary="Flow runs, the newest first by their start")(self.runs)
        router.get("/runs/{run}", tags=["runs"], summary="One flow run")(self.run)
        router.get("/signals", tags=["signals"], summary="The newest signals first")(self.signals)
        router.get("/signals/{id:path}", tags=["signals"], summary="One signal, and what became of it")(self.signal)
        router.get("/dead-letters", tags=["dead letters"], summary="The letters that failed last first")(self.letters)
        router.get("/dead-letters/{id}", tags=["dead letters"], summary="One letter, with what was received")(
            self.letter
        )
        return router

    async def events(
        self, caller: Reader, asked: Annotated[EventFilter, Depends()], cursor: Cursor = None, limit: Limit = 50
    ) -> Page:
        before = parts_of(cursor, str)
        query = asked.query(rule=asked.rule, before=None if before is None else _position(before[0]))
        rows: list[dict[str, Any]] = []
        async with patience():
            async for found in self.history.walk(query):
                if not may_event(caller, found):
                    continue
                if len(rows) == limit:
                    return page(rows, [rows[-1]["position"]])
                rows.append(plain({"position": found.position, **found.row}))
        return page(rows, None)

    async def event(self, caller: Reader, id: EventId, source: Source = None) -> dict[str, Any]:  # noqa: A002
        found = await self.history.get(await self.history.choose(id, source))
        if found is None or not may_event(caller, found):
            raise NotFound(f"the event {id!r} is not known (any more)")
        return plain(await whole_event(found, self.transitions))

    async def runs(
        self,
        *,
        caller: Reader,
        asked: Annotated[RunAttributes, Depends()],
        state: Annotated[list[str] | None, Query(description="Only in this state; may be given again")] = None,
        tag: Annotated[list[str] | None, Query(description="Only with this tag; may be given again")] = None,
        cursor: Cursor = None,
        limit: Annotated[int, Query(ge=1, le=200, description="At most so many")] = 50,
    ) -> Page:
        from services.prefect_api.run_listing import list_runs

        query, end, seen = RunFilter(**vars(asked), state=state, tag=tag).query(), None, 0
        if (parts := parts_of(cursor, float, int)) is not None:
            end, seen = parts
            if end > LAST_SECOND or seen > _MOST_AT_ONCE:
                raise ConfigError("cursor: begin again without it")
            query = replace(query, until=datetime.fromtimestamp(end, UTC))
        found = (await list_runs(await self.prefect(), query, limit=seen + limit + 1))[seen:]
        following = None
        if len(found) > limit:
            # Prefect's limit by time is inclusive: runs of the same moment are counted, to be left out.
            last = found[limit - 1]["expected"]
            same = sum(one["expected"] == last for one in found[:limit])
            began = last.timestamp() == end
            following = [last.timestamp(), same + (seen if began else 0)]
        return page([plain(one) for one in found[:limit] if may_run(caller, one)], following)

    async def run(self, caller: Reader, run: RunId) -> dict[str, Any]:
        from services.prefect_api.run_calls import read_run

        found = await read_run(await self.prefect(), run)
        if not may_run(caller, found):
            raise NotFound(f"there is no flow run {run!r}")
        return plain(found)

    async def signals(
        self, caller: Reader, asked: Annotated[SignalFilter, Depends()], cursor: Cursor = None, limit: Limit = 50
    ) -> Page:
        before = parts_of(cursor, int)
        async with patience():
            found = await signal_listing.find_signals(
                self.signal_queries,
                asked,
                limit=limit + 1,
                before=None if before is None else before[0],
                allowed=lambda one: may_signal(caller, one),
            )
        rows = await signal_listing.rows(self.redis, found[:limit])
        return page(list(map(plain, rows)), [found[limit - 1].place] if len(found) > limit else None)

    async def signal(self, caller: Reader, id: SignalId) -> dict[str, Any]:  # noqa: A002
        record = await self.signal_queries.get(await self.signal_queries.choose(id))
        if record is None or not may_signal(caller, record):
            raise NotFound(f"there is no signal {id!r}")
        return plain(await signal_listing.whole(self.redis, record))

    async def letters(
        self, caller: Reader, asked: Annotated[LetterFilter, Depends()], cursor: Cursor = None, limit: Limit = 50
    ) -> Page:
        before = parts_of(cursor, int, str)
        found: list[DeadLetter] = []
        following = None
        async with patience():
            async for letter in self.dead_letters.walk(
                asked.query(before=None if before is None else (before[0], before[1]))
            ):
                if not may_letter(caller, letter):
                    continue
                if len(found) == limit:
                    following = [int(found[-1].last_failed.timestamp() * 1000), found[-1].id]
                    break
                found.append(letter)
        return page([plain(letter_row(one)) for one in found], following)

    async def letter(self, caller: Reader, id: LetterId) -> dict[str, Any]:  # noqa: A002
        found = await self.dead_letters.get(await self.dead_letters.choose(id))
        if found is None or not may_letter(caller, found):
            raise NotFound(f"there is no dead letter {id!r}")
        return plain(letter_row(found)) | {"carries": found.carries, "content": content_of(found.raw)}


def _position(text: str) -> str:
    try:
        return is_position(text)
    except ValueError as error:
        raise ConfigError("cursor: begin again without it") from error
