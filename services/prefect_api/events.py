"""Prefect's events: following the states of runs, and Sluice's own events on the runs' pages."""

from __future__ import annotations

import asyncio
import contextlib
import random
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from prefect.events import Event as PrefectEvent
from prefect.events.filters import EventFilter, EventNameFilter, EventResourceFilter
from prefect.events.schemas.events import ResourceSpecification

from events.errors import Backpressure, SluiceError, TransientError
from services.common.backoff import Backoff, heed_cancellation
from services.prefect_api.client import PrefectApi
from services.prefect_api.runs import StateChange
from sluice.hearing import subscribed

_TAG: Final = "prefect.tag."
_DEPLOYMENT: Final = "prefect.deployment."

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Connected:
    """The subscription is (again) live; whatever happened before must be found by polling."""


class StateFeed(ABC):
    """Follows the states of flow runs: events tell at once, a poll finds what they did not tell.

    The events come over Prefect's websocket, at least once, in order for one run, and may be missing after a gap. So
    the poll runs at once after each (re)connection, after a state that could not be handled, and every
    ``poll_seconds``.
    """

    def __init__(self, *, doing: str, poll_seconds: float, state_types: Collection[str] = ()) -> None:
        """``doing`` describes the poll in the log; ``state_types``, if any, narrows what the server sends."""
        self._state_types = state_types
        self._poll_seconds = poll_seconds
        self._polls = Backoff(doing, first_seconds=0.5, longest_seconds=10)
        self._gap = asyncio.Event()
        self.connected = False
        """Whether Prefect has been reached by websocket."""

    @property
    def trouble(self) -> str | None:
        """Why the last poll failed."""
        return self._polls.trouble

    @abstractmethod
    async def changed(self, change: StateChange) -> None:
        """Handle a state. On `TransientError` and `Backpressure` a poll follows, which must find it."""

    @abstractmethod
    async def poll(self, *, gap: bool) -> None:
        """Find what was not told; ``gap``: events may be missing since the last poll. Repeated on a `SluiceError`."""

    async def follow(self) -> None:
        """Receive and poll until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._receive())
            tasks.create_task(self._poll_for_ever())

    async def _receive(self) -> None:
        # Closed here and not by the garbage collector, which leaves the connection open.
        async with contextlib.aclosing(state_changes(state_types=self._state_types)) as changes:
            async for change in changes:
                heed_cancellation()
                if isinstance(change, Connected):
                    self.connected = True
                    self._gap.set()
                    continue
                try:
                    await self.changed(change)
                except (TransientError, Backpressure):
                    if self.trouble is None:  # else a poll follows anyway
                        self._gap.set()

    async def _poll_for_ever(self) -> None:
        gap = True
        while True:
            self._gap.clear()
            pause = self._poll_seconds
            try:
                await self.poll(gap=gap)
                self._polls.worked()
            except SluiceError as error:
                pause = self._polls.failed(error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._gap.wait(), pause)
            heed_cancellation()
            gap = self._gap.is_set() or self.trouble is not None


async def state_changes(
    *,
    state_types: Collection[str] = (),
    backoff_seconds: float = 0.2,
    max_backoff_seconds: float = 10.0,
) -> AsyncGenerator[StateChange | Connected, None]:
    """Flow-run state changes as Prefect publishes them, for ever; `Connected` stands before the first and after a gap.

    ``state_types`` narrows by the state's type; what is ruled out is not even sent by the server. Tags are those of the
    run's creation, as Prefect caches them.
    """
    types = ResourceSpecification(root={"prefect.state-type": sorted(state_types)}) if state_types else None
    narrowed = EventFilter(
        event=EventNameFilter(prefix=["prefect.flow-run."]),
        resource=EventResourceFilter(id_prefix=["prefect.flow-run."], labels=types),
    )
    wait = backoff_seconds
    while True:
        try:
            async with subscribed(narrowed) as events:
                yield Connected()
                wait = backoff_seconds
                async for event in events:
                    change = _state_change(event)
                    if change is not None:
                        yield change
        except (GeneratorExit, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001 - the client raises bare Exception too; nothing may end the watch
            log.warning("prefect event stream lost, connecting again", error=str(error), in_seconds=round(wait, 1))
        await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        wait = min(wait * 2, max_backoff_seconds)


def run_event(
    event: str,
    *,
    run_id: str,
    payload: Mapping[str, Any],
    event_id: str | None = None,
    occurred: datetime | None = None,
) -> dict[str, Any]:
    """The body of a Prefect event of Sluice whose subject is the flow run ``run_id``, so that its page shows it."""
    body: dict[str, Any] = {
        "event": event,
        "occurred": (occurred or datetime.now(UTC)).isoformat(),
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run_id}"},
        "related": [],
        "payload": dict(payload),
    }
    if event_id is not None:
        body["id"] = event_id
    return body


async def emit(api: PrefectApi, events: Sequence[Mapping[str, Any]]) -> None:
    """Publish events (see `run_event`) to Prefect in one call."""
    if events:
        await api.request("POST", "/events", once=True, json=list(events))


def _state_change(event: PrefectEvent) -> StateChange | None:
    resource = event.resource
    state_type = resource.get("prefect.state-type")
    if not state_type:
        return None
    tags: list[str] = []
    deployment: str | None = None
    for related in event.related:
        if related.id.startswith(_TAG):
            tags.append(related.id.removeprefix(_TAG))  # which may hold dots
        elif related.id.startswith(_DEPLOYMENT):
            deployment = related.id.removeprefix(_DEPLOYMENT)
    return StateChange(
        run_id=resource.id.removeprefix("prefect.flow-run."),
        state_id=str(event.id),
        state_type=state_type,
        state_name=resource.get("prefect.state-name") or "",
        occurred=event.occurred,
        deployment_id=deployment,
        tags=tuple(tags),
        message=resource.get("prefect.state-message") or "",
    )
