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
    """The hints about one run: `hint` is set whenever its state may have changed, at once on each (re)connection."""

    def __init__(self, run_id: UUID) -> None:
        self._resource = f"prefect.flow-run.{run_id}"
        self._log: logging.Logger | logging.LoggerAdapter[logging.Logger] = get_logger("sluice")
        self.hint = asyncio.Event()
        self.connected = asyncio.Event()

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
                    self.hint.set()
                    wait = 0.2
                    async for event in subscriber:
                        if event.resource.get("prefect.state-type") not in {None, "PAUSED"}:
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
        yield found
    finally:
        listening.cancel()
        await asyncio.wait({listening}, timeout=1)
