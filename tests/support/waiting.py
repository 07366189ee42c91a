"""Waiting for a condition instead of for a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_SECONDS = 90.0
"""How long a condition may take that takes a second on an idle machine: only a test that fails waits that long."""

_LONGEST_PAUSE_SECONDS = 0.25


async def eventually(
    probe: Callable[[], Awaitable[T]], *, within_seconds: float = PATIENCE_SECONDS, what: str = ""
) -> T:
    """The first truthy answer of ``probe``; fails the test with the last answer when none comes in time."""
    began = asked = time.monotonic()
    answer = await probe()
    while not answer:
        now = time.monotonic()
        _in_time(now - began, within_seconds, what, answer)
        # As long a pause as the answer took, at least: what is waited for needs the server, too.
        await asyncio.sleep(max(now - asked, _pause_after(now - began)))
        asked = time.monotonic()
        answer = await probe()
    return answer


def wait_until(
    probe: Callable[[], T], *, within_seconds: float = PATIENCE_SECONDS, what: str | Callable[[], str] = ""
) -> T:
    """`eventually` for code without an event loop; ``what`` may be found out when it did not come true."""
    began = time.monotonic()
    answer = probe()
    while not answer:
        waited = time.monotonic() - began
        _in_time(waited, within_seconds, what, answer)
        time.sleep(_pause_after(waited))
        answer = probe()
    return answer


def _pause_after(waited: float) -> float:
    """A tenth of the wait so far: it ends at most so much late, and the processors are left to what is waited for."""
    return min(max(0.02, waited / 10), _LONGEST_PAUSE_SECONDS)


def _in_time(waited: float, within_seconds: float, what: str | Callable[[], str], answer: object) -> None:
    if waited > within_seconds:
        said = what if isinstance(what, str) else what()
        msg = f"{said or 'the condition'} did not come true within {within_seconds} s; last answer: {answer!r}"
        raise AssertionError(msg)
