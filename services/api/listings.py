"""What is known of events, runs, signals and dead letters: ``GET``, for tokens with the scope ``read``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Path, Query

from config.health import is_canary
from events.dead_letter import DeadLetter
from events.errors import ConfigError, NotFound
from services.api.paging import (
    LAST_SECOND,
    Cursor,
    Glob,
    Limit,
    Moment,
    Page,
    checked_globs,
    page,
    parts_of,
    patience,
    seconds_of,
)
from services.api.rows import content_of, letter_row, may_event, may_letter, may_run, may_signal, plain
from services.api.scopes import BEARER, Reader
from services.signals.listing import row, whole
from services.store.dead_letters import DeadLetters, LetterQuery
from services.store.event_transitions import EventTransitions
from services.store.events.history import History
from services.store.events.history import Query as EventQuery
from services.store.events.journal import STREAM
from services.store.events.known_events import KnownEvents
from services.store.keys import is_position
from services.store.signals.signal_queries import SignalQueries
from services.store.signals.signal_record import SignalRecord

if TYPE_CHECKING:
    from services.prefect_api.client import PrefectApi

Name = Annotated[str | None, Query(max_length=256)]
Source = Annotated[str | None, Query(max_length=256, description="Whose event, where several have the id")]
EventId = Annotated[str, Path(max_length=256)]
SignalId = Annotated[str, Path(max_length=300)]
LetterId = Annotated[str, Path(max_length=64)]
RunId = Annotated[str, Path(max_length=200, description="Its id or name")]
SignalStatus = Literal[
    "received", "applied", "buffered", "duplicate", "late", "rejected", "expired", "unknown-run", "unanswered"
]


class Listings:
    """The routes. ``prefect`` gives Prefect's API.

    What is outside of a caller's limits is left out of lists, and not found elsewhere: a page may have fewer rows than
    its limit, and ``next`` all the same.
    """

    def __init__(
        self,
        *,
        history: History,
        letters: DeadLetters,
        signals: SignalQueries,
        known: KnownEvents,
        transitions: EventTransitions,
        prefect: Callable[[], Awaitable[PrefectApi]],
    ) -> None:
        self._history = history
        self._letters = letters
        self._signals = signals
        self._known = known
        self._transitions = transitions
        self._prefect = prefect

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
        self,
        *,
        caller: Reader,
        type: Glob = None,  # noqa: A002 - the name of the parameter
        source: Glob = None,
        subject: Glob = None,
        rule: Name = None,
        since: Moment = None,
        until: Moment = None,
        cursor: Cursor = None,
        limit: Limit = 50,
        unmatched: bool = False,
        failed: bool = False,
    ) -> Page:
        checked_globs(type=type, source=source, subject=subject)
        before = parts_of(cursor, str)
        query = EventQuery(
            type=type,
            source=source,
            subject=subject,
            rule=rule,
            unmatched=unmatched,
            failed=failed,
            since=seconds_of(since),
            until=seconds_of(until),
            before=None if before is None else _position(before[0]),
        )
        rows: list[dict[str, Any]] = []
        async with patience():
            async for found in self._history.walk(query):
                if not may_event(caller, found):
                    continue
                if len(rows) == limit:
                    return page(rows, [rows[-1]["position"]])
                rows.append(plain({"position": found.position, **found.row}))
        return page(rows, None)

    async def event(self, caller: Reader, id: EventId, source: Source = None) -> dict[str, Any]:  # noqa: A002
        identity = await self._history.choose(id, source)
        found = await self._history.get(identity)
        if found is None or not may_event(caller, found):
            raise NotFound(f"the event {id!r} is not known (any more)")
        waits_for = await self._transitions.open_effects(identity)
        more = {
            "outcome": found.outcome,
            "reason": found.reason,
            "waits_for": waits_for,
            "timings_ms": found.timings_ms,
        }
        return found.model_dump(mode="json") | more

    async def runs(
        self,
        *,
        caller: Reader,
        deployment: Annotated[str | None, Query(max_length=400, description="flow/deployment, or a flow")] = None,
        state: Annotated[list[str] | None, Query(description="A type or name; may be given again")] = None,
        rule: Name = None,
        tag: Annotated[list[str] | None, Query(description="All of them")] = None,
        since: Moment = None,
        until: Moment = None,
        cursor: Cursor = None,
        limit: Annotated[int, Query(ge=1, le=200, description="At most so many")] = 50,
    ) -> Page:
        from services.prefect_api.run_listing import RunQuery, list_runs

        begin, end, seen = seconds_of(since), seconds_of(until), 0
        if (parts := parts_of(cursor, float, int)) is not None:
            end, seen = parts
            if end > LAST_SECOND or seen > _MOST_AT_ONCE:
                raise ConfigError("cursor: begin again without it")
        query = RunQuery(
            deployment=deployment,
            states=tuple(state or ()),
            tags=(*(tag or ()), *([f"rule:{rule}"] if rule else ())),
            since=_moment(begin),
            until=_moment(end),
        )
        found = (await list_runs(await self._prefect(), query, limit=seen + limit + 1))[seen:]
        following = None
        if len(found) > limit:
            # Prefect's limit by time is inclusive: runs of the same moment are counted, to be left out.
            last = found[limit - 1]["expected"]
            same = sum(one["expected"] == last for one in found[:limit])
            began = end is not None and last.timestamp() == end
            following = [last.timestamp(), same + (seen if began else 0)]
        return page([plain(one) for one in found[:limit] if may_run(caller, one)], following)

    async def run(self, caller: Reader, run: RunId) -> dict[str, Any]:
        from services.prefect_api.run_calls import read_run

        found = await read_run(await self._prefect(), run)
        if not may_run(caller, found):
            raise NotFound(f"there is no flow run {run!r}")
        return plain(found)

    async def signals(
        self,
        *,
        caller: Reader,
        outcome: SignalStatus | None = None,
        key: Annotated[str | None, Query(max_length=200)] = None,
        run: Annotated[str | None, Query(max_length=36, description="The run's id")] = None,
        cursor: Cursor = None,
        limit: Limit = 50,
    ) -> Page:
        before = parts_of(cursor, int)

        def wanted(record: SignalRecord) -> bool:
            signal = record.signal
            named = run is None or run in {str(signal.run_id), *record.marks}
            asked = key is not None or not is_canary(signal.id)
            return outcome in {None, record.status} and key in {None, signal.key} and named and asked

        async with patience():
            found = await self._signals.newest(
                limit + 1,
                wanted=lambda one: wanted(one) and may_signal(caller, one),
                before=None if before is None else int(before[0]),
            )
        sources = await self._sources(found)
        rows = [plain(row(record, sources)) for record in found[:limit]]
        return page(rows, [found[limit - 1].place] if len(found) > limit else None)

    async def signal(self, caller: Reader, id: SignalId) -> dict[str, Any]:  # noqa: A002
        record = await self._signals.get(await self._signals.choose(id))
        if record is None or not may_signal(caller, record):
            raise NotFound(f"there is no signal {id!r}")
        return plain(whole(record, await self._sources([record])))

    async def letters(
        self,
        *,
        caller: Reader,
        code: Name = None,
        rule: Name = None,
        kind: Literal["message", "event", "signal", "job", "stored"] | None = None,
        source: Glob = None,
        event: Annotated[str | None, Query(max_length=256, description="The event's id")] = None,
        since: Moment = None,
        until: Moment = None,
        cursor: Cursor = None,
        limit: Limit = 50,
    ) -> Page:
        checked_globs(source=source)
        before = parts_of(cursor, int, str)
        query = LetterQuery(
            code=code,
            rule=rule,
            kind=kind,
            source=source,
            event_id=event,
            since=seconds_of(since),
            until=seconds_of(until),
            before=None if before is None else (before[0], before[1]),
        )
        found: list[DeadLetter] = []
        async with patience():
            async for letter in self._letters.walk(query):
                if not may_letter(caller, letter):
                    continue
                if len(found) == limit:
                    last = found[-1]
                    return page(list(map(letter_row, found)), [int(last.last_failed.timestamp() * 1000), last.id])
                found.append(letter)
        return page(list(map(letter_row, found)), None)

    async def letter(self, caller: Reader, id: LetterId) -> dict[str, Any]:  # noqa: A002
        found = await self._letters.get(await self._letters.choose(id))
        if found is None or not may_letter(caller, found):
            raise NotFound(f"there is no dead letter {id!r}")
        return letter_row(found) | {"carries": found.carries, "content": content_of(found.raw)}

    async def _sources(self, records: list[SignalRecord]) -> dict[str, str | None]:
        return await self._known.sources([one.signal.event_identity for one in records if one.signal.event_identity])


_MOST_AT_ONCE = 10_000
"""How many runs may be due at one moment for a listing to go on behind them."""


def known_events(redis: Any) -> KnownEvents:
    """Those of the journal."""
    return KnownEvents(redis, stream=STREAM)


def _position(text: str) -> str:
    try:
        return is_position(text)
    except ValueError as error:
        raise ConfigError("cursor: begin again without it") from error


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
