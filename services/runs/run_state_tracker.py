"""The run state tracker: learns how runs end, keeps the history up to date and announces when an event is finished."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from typing_extensions import override

from services.common import metrics
from services.prefect_api.client import PAGE, PrefectApi
from services.prefect_api.events import StateFeed
from services.prefect_api.runs import FINAL_TYPES, StateChange, ended_since, news_of, retries_waiting
from services.runs.retried_runs import RetriedRuns
from services.store.event_transitions import CHECK_MS_EACH, EventTransitions, StateNews
from services.store.events.event_history import now_ms
from services.store.events.history import History
from services.store.files.returns import FileReturns

TAG: Final = "sluice"
POLL_SECONDS: Final = 5.0
_OVERLAP_SECONDS: Final = 60.0
"""How far before the last contact a search for missed states begins, because clocks differ."""

_LONGEST_CHECK_MS: Final = 300_000
_WAITING_CHECK_MS: Final = 10_000
"""Interval at which a waiting run is read again: that is cheap, see `news_of`."""

_DELETED: Final = "the run was deleted in Prefect"

log = structlog.get_logger()


class RunStateTracker(StateFeed):
    """Follows Prefect's state changes; any number of trackers may run.

    Its poll finds runs that have ended since the last contact, in case events are missing, and reads the state of each
    active run: less often the more there are, and less often the longer a run has been running.
    """

    def __init__(
        self, *, prefect: PrefectApi, recorder: EventTransitions, history: History, returns: FileReturns
    ) -> None:
        super().__init__(
            doing="ask Prefect for the states of runs",
            poll_seconds=POLL_SECONDS,
            state_types=FINAL_TYPES | {"RUNNING", "SCHEDULED"},
        )
        self._prefect = prefect
        self._recorder = recorder
        self._runs = returns.runs
        self._history = history
        self._retried = RetriedRuns(prefect=prefect, returns=returns)
        self._heard = 0
        self._found = 0
        self._open = 0

    async def run(self) -> None:
        """Follow the states until cancelled."""
        try:
            await self.follow()
        finally:
            await self._retried.close()

    def status(self) -> Mapping[str, Any]:
        """For the role's report."""
        return {
            "ready": self.connected,
            "heard": self._heard,
            "found_by_polling": self._found,
            "open_runs": self._open,
            **({"degraded": self.trouble} if self.trouble else {}),
        }

    @override
    async def changed(self, change: StateChange) -> None:
        if TAG in change.tags and change.state_type == "SCHEDULED":
            self._retried.heard(change)
        elif TAG in change.tags:
            self._heard += await self._record(change)

    @override
    async def poll(self, *, gap: bool) -> None:
        if gap:
            await self._catch_up()
        await self._ask_about_open_runs()
        await self._runs.contact(datetime.now(UTC).timestamp())

    async def _catch_up(self) -> None:
        """Read from Prefect what has ended since the last contact with it."""
        last = await self._runs.last_contact()
        if last is None:
            return
        since = datetime.fromtimestamp(last - _OVERLAP_SECONDS, UTC)
        for state in await retries_waiting(self._prefect, tag=TAG):
            self._retried.heard(state)
        for state in await ended_since(self._prefect, since, tag=TAG):
            self._found += await self._record(state)

    async def _ask_about_open_runs(self) -> None:
        """Ask Prefect about the active runs that are due for it, of which no event has been received for a time.

        A run that Prefect no longer has counts as cancelled.
        """
        self._open = await self._runs.open_count()
        while run_ids := await self._runs.due(now_ms(), limit=PAGE):
            await self._runs.ask_again(run_ids, at_ms=now_ms() + 30_000)  # no other tracker reads them at the same time
            news = await news_of(self._prefect, run_ids)
            now = datetime.now(UTC)
            deleted = [StateChange(run_id, None, "CANCELLED", "Deleted", now, _DELETED) for run_id in news.gone]
            told = {state.run_id: state for state in (*news.moved, *deleted)}
            for state in told.values():
                self._found += await self._record(state)
            open_still: dict[int, list[str]] = {}
            for run_id in run_ids:
                known = told.get(run_id)
                if known is None or known.state_type not in FINAL_TYPES:
                    open_still.setdefault(self._next_check_ms(known), []).append(run_id)
            for after_ms, ids in open_still.items():
                await self._runs.ask_again(ids, at_ms=now_ms() + after_ms)

    def _next_check_ms(self, state: StateChange | None) -> int:
        """Return when to read an active run again: after half of its state's age, and later the more runs are open."""
        age_ms = (datetime.now(UTC) - state.occurred).total_seconds() * 1000 if state is not None else 0
        wanted = max(5_000 if state is not None else _WAITING_CHECK_MS, age_ms / 2, self._open * CHECK_MS_EACH)
        return int(min(_LONGEST_CHECK_MS, wanted) // 1000 * 1000)

    async def _record(self, state: StateChange) -> int:
        """Return 1 for news, else 0."""
        final = state.state_type in FINAL_TYPES
        if not final and state.state_type != "RUNNING":
            return 0
        news = await self._recorder.run_state(
            run_id=state.run_id,
            state_type=state.state_type,
            state_name=state.state_name,
            message=state.message,
            at_ms=int(state.occurred.timestamp() * 1000),
            final=final,
            url=self._prefect.run_url(state.run_id),
        )
        if news.recovered:
            await self._history.recovered(state.run_id)
        if news.new:
            _measure(news, state)
        if news.new and final:
            log.info("run ended", run_id=state.run_id, rule=news.rule, state=state.state_name or state.state_type)
        return int(news.new)


def _measure(news: StateNews, state: StateChange) -> None:
    """Observe how long the run took to start, or took in all."""
    at_ms = state.occurred.timestamp() * 1000
    if state.state_type in FINAL_TYPES:
        metrics.ended.labels(news.rule, state.state_type.lower()).inc()
        if news.before == "RUNNING":
            metrics.duration_seconds.labels(news.rule).observe(max(0.0, at_ms - news.before_ms) / 1000)
    elif not news.before and news.created_ms is not None:
        due_ms = news.planned_ms or news.created_ms
        metrics.start_seconds.labels(news.rule).observe(max(0.0, at_ms - due_ms) / 1000)
        if news.planned_ms is None:
            metrics.latency_seconds.labels(news.rule).observe(max(0.0, at_ms - news.journalled_ms) / 1000)
