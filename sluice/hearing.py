"""Receives one run's state changes from Prefect's event stream, so that a wait need not poll."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import Final
from uuid import UUID

from prefect.events import Event
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventFilter, EventNameFilter, EventResourceFilter
from prefect.logging import get_logger

_CONNECT_SECONDS: Final = 3.0
_LONGEST_BACKOFF_SECONDS: Final = 10.0


@asynccontextmanager
async def subscribed(narrowed: EventFilter) -> AsyncIterator[AsyncIterable[Event]]:
    """Yield the events that Prefect's server sends from now on, until the connection is lost.

    Raises whatever Prefect's client raises, bare exceptions too. If it fails, or is cancelled, before the server has
    accepted the filter, the connection is closed, too, which Prefect's client leaves open.
    """
    subscriber = get_events_subscriber(filter=narrowed, reconnection_attempts=0)
    async with AsyncExitStack() as stack:
        stack.push_async_exit(subscriber.__aexit__)
        yield await subscriber.__aenter__()


class Hearing:
    """The received events of one run; `hint` is set when it is worth reading the run."""

    def __init__(self, run_id: UUID) -> None:
        self._resource = f"prefect.flow-run.{run_id}"
        self._log: logging.Logger | logging.LoggerAdapter[logging.Logger] = get_logger("sluice")
        self._entered: datetime | None = None
        self._moved: datetime | None = None
        self._scheduled: datetime | None = None
        self._told = False
        self.hint = asyncio.Event()
        self.connected = asyncio.Event()
        self.rescheduled = False
        """Whether the run was scheduled again while it waited, so that another process continues it."""
        self.begun = False
        """Whether the wait has begun: a connection that is made later may have missed events."""

    def watch(self, entered: datetime) -> None:
        """Set the hint when the run leaves the paused state that it entered at this time of the server's clock."""
        self._entered = entered
        self._compare()

    def taken(self) -> bool:
        """Clear the hint, and return whether an event said that the run left the state or is about to."""
        told, self._told = self._told, False
        self.hint.clear()
        return told

    def _heard(self, event: Event) -> None:
        if event.resource.get("prefect.state-type") in {None, "PAUSED"}:
            return
        # Prefect first sends the events of the last minute, not in order: their times are those of the states.
        self._moved = max(event.occurred, self._moved or event.occurred)
        if event.resource.get("prefect.state-type") in {"SCHEDULED", "PENDING"}:
            self._scheduled = max(event.occurred, self._scheduled or event.occurred)
        self._compare()

    def _compare(self) -> None:
        if self._entered is None:
            return
        if self._scheduled is not None and self._scheduled > self._entered:
            self.rescheduled = True
        if self._moved is not None and self._moved > self._entered:
            self._moved = None
            self._told = True
            self.hint.set()

    async def listen(self) -> None:
        """Listen until cancelled; a lost connection is made again."""
        wait = 0.2
        while True:
            narrowed = EventFilter(
                event=EventNameFilter(prefix=["prefect.flow-run."]), resource=EventResourceFilter(id=[self._resource])
            )
            try:
                async with subscribed(narrowed) as events:
                    self.connected.set()
                    if self.begun:
                        self.hint.set()
                    wait = 0.2
                    async for event in events:
                        self._heard(event)
            except Exception as error:  # noqa: BLE001 - the client raises bare Exception too, and polling goes on
                self._log.debug("Event stream lost, connecting again in %.1f s: %s", wait, error)
            self.connected.clear()
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_BACKOFF_SECONDS)


@asynccontextmanager
async def hearing(run_id: UUID) -> AsyncIterator[Hearing]:
    """Listen to the run while the context lasts; entered once connected, or after 3 s without a connection."""
    found = Hearing(run_id)
    listening = asyncio.create_task(found.listen())
    try:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(found.connected.wait(), _CONNECT_SECONDS)
        found.begun = True
        yield found
    finally:
        listening.cancel()
        await asyncio.wait({listening}, timeout=1)
