"""Waiting out trouble: longer each time, never all instances at once, and one log line for each change of condition."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, Self

import structlog

if TYPE_CHECKING:
    from config.settings import ListenerSettings

log = structlog.get_logger()


class Backoff:
    """One thing that is tried again until it works; ``trouble`` is what stands in its way, for the status."""

    def __init__(self, doing: str, *, first_seconds: float, longest_seconds: float) -> None:
        self._doing = doing
        self._first_seconds = first_seconds
        self._longest_seconds = longest_seconds
        self._next_seconds = first_seconds
        self.trouble: str | None = None

    @classmethod
    def of(cls, doing: str, settings: ListenerSettings) -> Self:
        """Wait as long as listeners do."""
        return cls(doing, first_seconds=settings.backoff_seconds, longest_seconds=settings.max_backoff_seconds)

    def status(self, **more: Any) -> dict[str, Any]:
        """The status of a part, with what stands in its way as ``degraded``."""
        return more | ({"degraded": self.trouble} if self.trouble else {})

    def failed(self, error: Exception) -> float:
        """Note a failure; answers how many seconds to wait before the next attempt."""
        sentence = str(error) or type(error).__name__
        if self.trouble is None:
            log.warning("trying again until it works", doing=self._doing, error=sentence)
        self.trouble = sentence
        wait = self._next_seconds * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        self._next_seconds = min(self._next_seconds * 2, self._longest_seconds)
        return wait

    async def after(self, error: Exception) -> None:
        """Note a failure and wait."""
        heed_cancellation()
        await asyncio.sleep(self.failed(error))

    def worked(self) -> None:
        """Note that it works."""
        if self.trouble is not None:
            log.info("it works again", doing=self._doing, was=self.trouble)
            self.trouble = None
        self._next_seconds = self._first_seconds


def heed_cancellation() -> None:
    """Raise `asyncio.CancelledError` if this task was told to end and something on the way swallowed that.

    Python 3.11's ``asyncio.wait_for``, which redis-py writes through, does so when its work is done at that moment.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def ended(*tasks: asyncio.Task[None], every_seconds: float = 1.0) -> None:
    """Cancel the tasks until they have ended, for the same reason: one cancellation may be swallowed."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=every_seconds)
