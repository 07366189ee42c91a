"""Publishes to Prefect's event feed which event led to which run, without delaying the dispatcher."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog

from events.errors import NotFound, Refused, TransientError
from events.identity import id_of
from services.common.backoff import Backoff, heed_cancellation
from services.prefect_api.client import PrefectApi
from services.prefect_api.deployments import Deployment
from services.prefect_api.events import emit, event_resource, related, run_event
from services.store.runs.dispatch_queues import Dispatch

DISPATCHED: Final = "sluice.event.dispatched"

_AT_ONCE: Final = 200
_MOST_WAITING: Final = 10_000
_GATHER_SECONDS: Final = 1.0
"""Announcements within this time go into one request, which costs Prefect less than one request for each."""

_PATIENCE_SECONDS: Final = 60.0
"""Longest time that announcements wait for an idle dispatcher: Prefect creates runs first."""

_LISTED_EVENTS: Final = 100
_RELATED_EVENTS: Final = 10

log = structlog.get_logger()


class Announcer:
    """Publishes one event for each created run, with the run as its resource.

    At most once if the process ends, and never twice: the event's id follows from the run's. While Prefect is away a
    bounded number is kept; dropped ones are counted and logged. The run's tags name its events, too.
    """

    def __init__(self, *, prefect: PrefectApi) -> None:
        self._prefect = prefect
        self._busy: Callable[[], bool] | None = None
        self._waiting: deque[dict[str, Any]] = deque()
        self._batches: deque[list[dict[str, Any]]] = deque()
        """The announcements that are being published."""
        self._some = asyncio.Event()
        self._trouble = Backoff("publish to Prefect's event feed", first_seconds=0.5, longest_seconds=10)
        self._published = 0
        self._dropped = 0
        self._dropped_told = 0

    def give_way(self, busy: Callable[[], bool]) -> None:
        """Let announcements wait, within limits, while ``busy`` says that runs are to be created first."""
        self._busy = busy

    def announce(self, dispatch: Dispatch, run_id: str, target: Deployment | None = None) -> None:
        """Publish soon that the dispatch became the run of ``target``; while Prefect is away the oldest are dropped."""
        action = dispatch.action
        payload = {
            "event_id": id_of(action.identities[0]),
            "event_ids": [id_of(identity) for identity in action.identities[:_LISTED_EVENTS]],
            "event_type": dispatch.type,
            "event_source": dispatch.source,
            "rule": action.rule,
            "deployment": action.deployment,
            "file": dispatch.file["path"] if dispatch.file else None,
        }
        id_ = str(uuid.uuid5(uuid.UUID(run_id), DISPATCHED))
        if len(self._waiting) >= _MOST_WAITING:
            self._waiting.popleft()
            self._drop(1)
        known = _related(dispatch, target)
        self._waiting.append(
            run_event(DISPATCHED, run_id=run_id, name=action.run_name, payload=payload, related=known, event_id=id_)
        )
        self._some.set()

    async def run(self) -> None:
        """Publish until cancelled."""
        while True:
            await self._some.wait()
            await self._moment()
            left = self._left
            while left > 0:  # until all are published: a long backlog can grow faster than a single call shrinks it
                left -= await self._publish()
            self._tell_dropped()
            if not self._left:
                self._some.clear()

    @property
    def _left(self) -> int:
        return len(self._waiting) + sum(len(batch) for batch in self._batches)

    async def _moment(self) -> None:
        """Wait until the dispatcher is idle, the longest wait has passed, or too many announcements are kept."""
        patience = time.monotonic() + _PATIENCE_SECONDS
        await asyncio.sleep(_GATHER_SECONDS)
        while self._busy is not None and self._busy() and time.monotonic() < patience:
            if self._left > _MOST_WAITING / 2:
                break
            await asyncio.sleep(_GATHER_SECONDS / 4)

    async def _publish(self) -> int:
        """Make one call, and return the number of announcements handled."""
        heed_cancellation()
        if not self._batches:
            self._batches.append([self._waiting.popleft() for _ in range(min(len(self._waiting), _AT_ONCE))])
        batch = self._batches[0]
        try:
            await emit(self._prefect, batch)
        except TransientError as error:
            await self._trouble.after(error)
            return 0
        except Refused as error:
            if len(batch) > 1:  # one of them may be at fault: the others are published without it
                middle = len(batch) // 2
                self._batches[0] = batch[middle:]
                self._batches.appendleft(batch[:middle])
                return 0
            log.warning("prefect refuses an event", error=str(error), refused=batch[0]["id"])
            self._drop(1, told=True)
        except NotFound as error:
            log.warning("prefect does not take events", error=str(error), dropped=len(batch))
            self._drop(len(batch), told=True)
        else:
            self._published += len(batch)
        self._trouble.worked()
        self._batches.popleft()
        return len(batch)

    def _drop(self, count: int, *, told: bool = False) -> None:
        """Count dropped announcements; log the first at once, the others when Prefect is back."""
        self._dropped += count
        if told:
            self._dropped_told += count
        elif self._dropped == self._dropped_told + count:
            self._tell_dropped()

    def _tell_dropped(self) -> None:
        if self._dropped > self._dropped_told:
            log.warning(
                "announcements were dropped: too many while prefect was away",
                dropped=self._dropped - self._dropped_told,
                in_all=self._dropped,
                most_waiting=_MOST_WAITING,
            )
            self._dropped_told = self._dropped

    def status(self) -> Mapping[str, Any]:
        """For the role's report."""
        return {"published": self._published, "waiting": self._left, "dropped": self._dropped}


def _related(dispatch: Dispatch, target: Deployment | None) -> list[dict[str, str]]:
    """The related resources of a created run: deployment, flow, rule, source, file and events."""
    action = dispatch.action
    found = [related("rule", f"sluice.rule.{action.rule}", action.rule)]
    if target is not None:
        found.append(related("deployment", f"prefect.deployment.{target.id}", target.name))
        found.append(related("flow", f"prefect.flow.{target.flow_id}", target.name.partition("/")[0]))
    found.append(related("source", f"sluice.source.{dispatch.source}", dispatch.source))
    if dispatch.file is not None:
        found.append(related("file", f"sluice.file.{dispatch.file['path']}", str(dispatch.file["path"])))
    return [*found, *map(event_resource, action.identities[:_RELATED_EVENTS])]
