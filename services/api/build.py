"""Builds the routes of the API other than those that accept events."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from fastapi import APIRouter

from config.settings import Settings
from services.api.approvals import Approvals
from services.api.listings import Listings
from services.api.replays import Replays
from services.routing.dead_letter_replay import DeadReplay
from services.routing.replay import Replay
from services.signals.submission import SignalSubmission
from services.store.access.link_secret import link_secret
from services.store.connection import AsyncRedis
from services.store.dead_letters import DeadLetters
from services.store.event_finder import EventFinder
from services.store.event_transitions import EventTransitions
from services.store.events.history import History
from services.store.events.journal import Journal
from services.store.files.returns import FileReturns
from services.store.signals.signals import SignalStore

if TYPE_CHECKING:
    from services.prefect_api.client import PrefectApi
    from services.prefect_api.waiting import WaitingRuns


class _Prefect:
    """Prefect for requests: its client is imported with the first request that needs it, which takes a second."""

    def __init__(self, connect: Callable[[], Awaitable[PrefectApi]], project: str | None) -> None:
        self._connect = connect
        self._project = project
        self._connecting = asyncio.Lock()

    async def connected(self) -> PrefectApi:
        """Return the API, connected once for all requests."""
        async with self._connecting:  # several requests may need it at the same time
            await asyncio.to_thread(importlib.import_module, "services.prefect_api.client")
            return await self._connect()

    async def waiting_runs(self) -> WaitingRuns:
        """Return the runs of the project that wait."""
        api = await self.connected()
        from services.prefect_api.waiting import WaitingRuns

        return WaitingRuns(api, project=self._project)


def build_routers(
    redis: AsyncRedis,
    settings: Settings,
    submission: SignalSubmission,
    prefect: Callable[[], Awaitable[PrefectApi]],
    project: str | None,
) -> list[APIRouter]:
    """Return the routers; those that act come before those that read, whose paths match any id.

    ``prefect`` connects to Prefect. ``project`` is the name of the project whose waits are answered by approval links.
    """
    api = _Prefect(prefect, project)
    signals = SignalStore(redis, settings.resumer)
    history = History(redis, settings.history)
    journal = Journal(redis, settings.journal)
    letters = DeadLetters(redis)
    returns = FileReturns(redis, journal=settings.journal, history=settings.history)

    replays = Replays(
        replay=Replay(
            journal=journal, history=history, finder=EventFinder(redis, history), returns=returns, prefect=prefect
        ),
        dead_replay=DeadReplay(
            journal=journal,
            letters=letters,
            history=history,
            returns=returns,
            submit_signal=submission.submit,
            limits=settings.limits.as_limits(),
        ),
        letters=letters,
    )
    listings = Listings(
        redis=redis,
        history=history,
        dead_letters=letters,
        signal_queries=signals,
        transitions=EventTransitions(redis, retention_seconds=settings.history.retention_seconds),
        prefect=api.connected,
    )
    approvals = Approvals(
        runs=api.waiting_runs,
        signals=signals,
        submit=partial(submission.submit, origin="approval link"),
        secret=partial(link_secret, redis),
        settings=settings.api,
    )
    return [approvals.router(), replays.router(), listings.router()]
