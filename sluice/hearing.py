"""Hearing about one run's state changes from Prefect's event stream, so that nobody has to poll for them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventFilter, EventNameFilter, EventResourceFilter
from prefect.logging import get_logger

_CONNECT_SECONDS: Final = 3.0
_LONGEST_BACKOFF_SECONDS: Final = 10.0


class Hearing:
    """What is heard of one run: `hint` is set whenever a look at it may be worth while."""

    def __init__(self, run_id: UUID) -> None:
        self._resource = f"prefect.flow-run.{run_id}"
        self._log: logging.Logger | logging.LoggerAdapter[logging.Logger] = get_logger("sluice")
        self._paused: UUID | None = None
        self._left: set[UUID | None] = set()
        self._gap = False
        self.hint = asyncio.Event()
        self.connected = asyncio.Event()
        self.begun = False
        """Whether the wait has begun: a connection that is made later may have missed something."""

    def taken(self, state_id: UUID) -> bool:
        """Whether Prefect has told meanwhile that the run left (or is about to leave) that paused state."""
        told = not self._left.isdisjoint({state_id, None})
        self._left.clear()
        self.hint.clear()
        return told

    async def listen(self) -> None:
        """Listen until cancelled; a lost connection is made again."""
        wait = 0.2
        while True:
            narrowed = EventFilter(
                event=EventNameFilter(prefix=["prefect.flow-run."]), resource=EventResourceFilter(id=[self._resource])
            )
            try:
                async with get_events_subscriber(filter=narrowed, reconnection_attempts=0) as subscriber:
                    self.connected.set()
                    self._paused = None
                    if self.begun:
                        self._gap = True
                        self.hint.set()
                    wait = 0.2
                    async for event in subscriber:
                        kind = event.resource.get("prefect.state-type")
                        if kind == "PAUSED":
                            self._paused = event.id  # it is the state's
                        elif kind is not None and (self._paused is not None or self._gap):
                            self._left.add(self._paused)  # else it is old news, which Prefect sends ahead
                            self.hint.set()
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
