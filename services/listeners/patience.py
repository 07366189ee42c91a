"""Waiting out trouble: back-off with jitter, and one log line for each change of condition."""

from __future__ import annotations

import asyncio
import random

import structlog

from config.settings import ListenerSettings
from services import metrics

log = structlog.get_logger()


def heed_cancellation() -> None:
    """Raise `asyncio.CancelledError` if this task was told to end and something on the way swallowed that.

    Python 3.11's ``asyncio.wait_for``, which redis-py writes through, does so when its work is done at that moment.
    Every endless loop that talks to Redis calls this once a turn.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


class Patience:
    """One thing that is tried again until it works; `trouble` is what stands in its way, for the status."""

    def __init__(self, *, listener: str, doing: str, settings: ListenerSettings) -> None:
        self._listener = listener
        self._doing = doing
        self._settings = settings
        self._wait = settings.backoff_seconds
        self.trouble: str | None = None

    async def after(self, error: Exception) -> None:
        """Note that an attempt failed and wait before the next one, longer each time, never all instances at once."""
        heed_cancellation()
        sentence = str(error) or type(error).__name__
        metrics.retries.labels(self._listener).inc()
        if self.trouble is None:
            log.warning("trying again until it works", listener=self._listener, doing=self._doing, error=sentence)
        elif self.trouble != sentence:
            log.info("still trying, the reason has changed", listener=self._listener, doing=self._doing, error=sentence)
        self.trouble = sentence
        wait = self._wait * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        self._wait = min(self._wait * 2, self._settings.max_backoff_seconds)
        await asyncio.sleep(wait)

    def over(self) -> None:
        """Note that an attempt worked."""
        if self.trouble is not None:
            log.info("it works again", listener=self._listener, doing=self._doing, was=self.trouble)
            self.trouble = None
        self._wait = self._settings.backoff_seconds
