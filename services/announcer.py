"""Tells Prefect's event feed which event led to which run, behind the dispatcher's back and never in its way."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog

from events.errors import NotFound, RejectedEvent, TransientError
from events.identity import id_of
from services.backoff import Backoff, heed_cancellation
from services.prefect_api.client import PrefectApi
from services.prefect_api.events import emit, run_event
from services.store.lanes import Dispatch

DISPATCHED: Final = "sluice.event.dispatched"

_AT_ONCE: Final = 200
_MOST_WAITING: Final = 10_000
_GATHER_SECONDS: Final = 1.0
"""One request for what came within this time costs Prefect less than one for each, and leaves it to create runs."""

_PATIENCE_SECONDS: Final = 60.0
"""So long announcements wait for the dispatcher to have nothing to do: Prefect creates runs first."""

_LISTED_EVENTS: Final = 100

log = structlog.get_logger()


class Announcer:
    """Publishes one event for each created run, with the run as its resource.

    At most once if the process ends, and never twice: the event's id follows from the run's. The run's tags name its
    events too, so a lost announcement loses no connection.
    """

    def __init__(self, *, prefect: PrefectApi, busy: Callable[[], bool] = lambda: False) -> None:
        self._prefect = prefect
        self._busy = busy
        self._waiting: deque[dict[str, Any]] = deque(maxlen=_MOST_WAITING)
        self._some = asyncio.Event()
        self._trouble = Backoff("publish to Prefect's event feed", first_seconds=0.5, longest_seconds=10)
        self._published = 0

    def announce(self, dispatch: Dispatch, run_id: str) -> None:
        """Publish soon that the dispatch became the run; while Prefect is away the oldest give way to the newest."""
        action = dispatch.action
        payload = {
            "event_id": id_of(action.identities[0]),
            "event_ids": [id_of(identity) for identity in action.identities[:_LISTED_EVENTS]],
            "event_type": dispatch.type,
            "event_source": dispatch.source,
            "rule": action.rule,
        }
        id_ = str(uuid.uuid5(uuid.UUID(run_id), DISPATCHED))
        self._waiting.append(run_event(DISPATCHED, run_id=run_id, payload=payload, event_id=id_))
        self._some.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            await self._some.wait()
            await self._moment()
            left = len(self._waiting)
            while left > 0:  # all of them: with a long backlog more come in than one call takes
                published = await self._publish()
                left -= published
            if not self._waiting:
                self._some.clear()

    async def _moment(self) -> None:
        """Wait until Prefect has no runs to create, or has had some for long enough."""
        patience = time.monotonic() + _PATIENCE_SECONDS
        await asyncio.sleep(_GATHER_SECONDS)
        while self._busy() and time.monotonic() < patience:  # noqa: ASYNC110 - nobody tells when it is done
            await asyncio.sleep(_GATHER_SECONDS / 4)

    async def _publish(self) -> int:
        """Make one call, and answer how many announcements are done with."""
        heed_cancellation()
        batch = [self._waiting[index] for index in range(min(len(self._waiting), _AT_ONCE))]
        try:
            await emit(self._prefect, batch)
        except TransientError as error:
            await self._trouble.after(error)
            return 0
        except (RejectedEvent, NotFound) as error:
            log.warning("prefect does not take events", error=str(error), events=len(batch))
        self._trouble.worked()
        self._published += len(batch)
        for _ in batch:
            self._waiting.popleft()
        return len(batch)

    def status(self) -> Mapping[str, Any]:
        """For the role's report."""
        return {"published": self._published, "waiting": len(self._waiting)}
