"""Outcomes: hears how the runs end, keeps the history up to date and announces when an event is finished."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from events.errors import Backpressure, NotFound, RejectedEvent, TransientError
from services.common.backoff import Backoff, heed_cancellation
from services.prefect_api.client import PrefectApi
from services.prefect_api.events import Connected, StateChange, state_changes
from services.prefect_api.runs import FINAL_TYPES, PAGE, RunNow, ended_since, news_of
from services.store.event_transitions import CHECK_MS_EACH, EventTransitions
from services.store.events.event_history import now_ms
from services.store.events.history import History
from services.store.runs.created_runs import CreatedRuns

TAG: Final = "sluice"
POLL_SECONDS: Final = 5.0
_OVERLAP_SECONDS: Final = 60.0
"""How far before the last contact a search for what was missed begins: clocks differ."""

_LONGEST_CHECK_MS: Final = 300_000
_WAITING_CHECK_MS: Final = 10_000
"""How soon a run that waits for something is asked about again: that is cheap, see `news_of`."""

_DELETED: Final = "the run was deleted in Prefect"

log = structlog.get_logger()


def _told_states() -> AsyncIterator[StateChange | Connected]:
    return state_changes(state_types=[*sorted(FINAL_TYPES), "RUNNING"])


class RunStateTracker:
    """One of any number of listeners to Prefect's state changes.

    The websocket is quick and may miss things; two polls find those: what has ended since the last contact, asked after
    every (re)connection, and the state of each open run, asked the less often the more of them there are and, while one
    runs, the longer it does.
    """

    def __init__(
        self,
        *,
        prefect: PrefectApi,
        recorder: EventTransitions,
        runs: CreatedRuns,
        history: History,
        watch: Callable[[], AsyncIterator[StateChange | Connected]] = _told_states,
    ) -> None:
        self._prefect = prefect
        self._recorder = recorder
        self._runs = runs
        self._history = history
        self._watch = watch
        self._missed = asyncio.Event()
        self._missed.set()
        self._connected = False
        self._heard = 0
        self._found = 0
        self._open = 0
        self._trouble = Backoff("ask Prefect for the states of runs", first_seconds=0.5, longest_seconds=10)

    async def run(self) -> None:
        """Listen and poll until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen())
            tasks.create_task(self._poll())

    def status(self) -> Mapping[str, Any]:
        """For the role's report."""
        status: dict[str, Any] = {
            "ready": self._connected,
            "heard": self._heard,
            "found_by_polling": self._found,
            "open_runs": self._open,
        }
        if self._trouble.trouble:
            status["degraded"] = self._trouble.trouble
        return status

    async def _listen(self) -> None:
        async for change in self._watch():
            heed_cancellation()
            if isinstance(change, Connected):
                self._connected = True
                self._missed.set()
                continue
            if TAG not in change.tags:
                continue
            now = RunNow(change.run_id, change.state_type, change.state_name, change.message, change.occurred)
            try:
                self._heard += await self._record(now)
            except (TransientError, Backpressure):
                self._missed.set()  # Redis was away: what was not recorded is found by asking again

    async def _poll(self) -> None:
        while True:
            try:
                if self._missed.is_set():
                    self._missed.clear()
                    await self._catch_up()
                await self._ask_about_open_runs()
                await self._runs.contact(datetime.now(UTC).timestamp())
                self._trouble.worked()
            except (TransientError, Backpressure, NotFound, RejectedEvent) as error:
                self._missed.set()
                await self._trouble.after(error)
                continue
            try:
                await asyncio.wait_for(self._missed.wait(), POLL_SECONDS)
            except TimeoutError:
                heed_cancellation()

    async def _catch_up(self) -> None:
        last = await self._runs.last_contact()
        if last is None:
            return
        for now in await ended_since(self._prefect, datetime.fromtimestamp(last - _OVERLAP_SECONDS, UTC), tag=TAG):
            self._found += await self._record(now)

    async def _ask_about_open_runs(self) -> None:
        self._open = await self._runs.open_count()
        while run_ids := await self._runs.due(now_ms(), limit=PAGE):
            await self._runs.ask_again(run_ids, at_ms=now_ms() + 30_000)  # nobody else asks at the same time
            news = await news_of(self._prefect, run_ids)
            deleted = [RunNow(run_id, "CANCELLED", "Deleted", _DELETED, datetime.now(UTC)) for run_id in news.gone]
            told = {now.run_id: now for now in (*news.moved, *deleted)}
            for now in told.values():
                self._found += await self._record(now)
            open_still: dict[int, list[str]] = {}
            for run_id in run_ids:
                known = told.get(run_id)
                if known is None or known.state_type not in FINAL_TYPES:
                    open_still.setdefault(self._next_check_ms(known), []).append(run_id)
            for after_ms, ids in open_still.items():
                await self._runs.ask_again(ids, at_ms=now_ms() + after_ms)

    def _next_check_ms(self, now: RunNow | None) -> int:
        """Half of its state's age later for a run that goes on, and the less often the more runs are open."""
        age_ms = (datetime.now(UTC) - now.at).total_seconds() * 1000 if now is not None else 0
        wanted = max(5_000 if now is not None else _WAITING_CHECK_MS, age_ms / 2, self._open * CHECK_MS_EACH)
        return int(min(_LONGEST_CHECK_MS, wanted) // 1000 * 1000)

    async def _record(self, now: RunNow) -> int:
        """Return 1 for news."""
        final = now.state_type in FINAL_TYPES
        if not final and now.state_type != "RUNNING":
            return 0
        news = await self._recorder.run_state(
            run_id=now.run_id,
            state_type=now.state_type,
            state_name=now.state_name,
            message=now.message,
            at_ms=int(now.at.timestamp() * 1000),
            final=final,
            url=self._prefect.run_url(now.run_id),
        )
        if news.recovered:
            await self._history.recovered(now.run_id)
        if news.new and final:
            log.info("run ended", run_id=now.run_id, state=now.state_name or now.state_type)
        return int(news.new)
