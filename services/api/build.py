"""Builds the routes of the API beside those that take events in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from fastapi import APIRouter

from config.settings import Settings
from events.signal import ResumeSignal
from services.api.listings import Listings, known_events
from services.api.replays import Replays
from services.routing.dead_letter_replay import DeadReplay
from services.routing.replay import Replay
from services.signals.submission import SignalSubmission
from services.store.connection import AsyncRedis
from services.store.dead_letters import DeadLetters
from services.store.event_transitions import EventTransitions
from services.store.events.history import History
from services.store.events.journal import Journal
from services.store.signals.signals import SignalStore

if TYPE_CHECKING:
    from services.prefect_api.client import PrefectApi


def build_routers(
    *,
    redis: AsyncRedis,
    settings: Settings,
    submission: SignalSubmission,
    prefect: Callable[[], Awaitable[PrefectApi]],
) -> list[APIRouter]:
    """The routers; what acts stands before what reads, whose paths take any id."""
    history = History(redis, settings.history)
    journal = Journal(redis, settings.journal)
    letters = DeadLetters(redis)

    async def submit(signal: ResumeSignal, origin: str) -> object:
        return await submission.submit(signal, origin=origin)

    replays = Replays(
        replay=Replay(journal=journal, history=history),
        dead_replay=DeadReplay(
            journal=journal,
            letters=letters,
            history=history,
            submit_signal=submit,
            limits=settings.limits.as_limits(),
        ),
        letters=letters,
    )
    listings = Listings(
        history=history,
        letters=letters,
        signals=SignalStore(redis, settings.resumer),
        known=known_events(redis),
        transitions=EventTransitions(redis, retention_seconds=settings.history.retention_seconds),
        prefect=prefect,
    )
    return [replays.router(), listings.router()]
