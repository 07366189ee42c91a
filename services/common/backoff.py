"""Back-off: pauses that grow with each failure, with jitter, and one log line for each change of condition."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, Self

import structlog

if TYPE_CHECKING:
    from config.settings import ListenerSettings

log = structlog.get_logger()


class Backoff:
    """One operation that is retried until it works; ``trouble`` says why it fails, for the status."""

    def __init__(self, doing: str, *, first_seconds: float, longest_seconds: float) -> None:
        self._doing = doing
        self._first_seconds = first_seconds
        self._longest_seconds = longest_seconds
        self._next_seconds = first_seconds
        self.trouble: str | None = None

    @classmethod
    def of(cls, doing: str, settings: ListenerSettings) -> Self:
        """Return a back-off with the listeners' settings."""
        return cls(doing, first_seconds=settings.backoff_seconds, longest_seconds=settings.max_backoff_seconds)

    def status(self, **more: Any) -> dict[str, Any]:
        """Return the status of a part, with the reason of its failure as ``degraded``."""
        return more | ({"degraded": self.trouble} if self.trouble else {})

    def failed(self, error: Exception) -> float:
        """Record a failure; return the seconds to wait before the next attempt."""
        sentence = str(error) or type(error).__name__
        if self.trouble is None:
            log.warning("trying again until it works", doing=self._doing, error=sentence)
        self.trouble = sentence
        wait = self._next_seconds * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        self._next_seconds = min(self._next_seconds * 2, self._longest_seconds)
        return wait

    async def after(self, error: Exception) -> None:
        """Record a failure and wait."""
        heed_cancellation()
        await asyncio.sleep(self.failed(error))

    def worked(self) -> None:
        """Record a success."""
        if self.trouble is not None:
            log.info("it works again", doing=self._doing, was=self.trouble)
            self.trouble = None
        self._next_seconds = self._first_seconds


def heed_cancellation() -> None:
    """Raise `asyncio.CancelledError` if this task was cancelled and a call swallowed the cancellation.

    Python 3.11's ``asyncio.wait_for``, which redis-py writes through, does so when its work is done at that moment.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def ended(*tasks: asyncio.Task[None], every_seconds: float = 1.0) -> None:
    """Cancel the tasks until they have ended, because one cancellation may be swallowed, as above."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=every_seconds)
