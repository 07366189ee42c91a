"""Waiting for a condition instead of for a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_SECONDS = 90.0
"""How long a condition may take that takes a second on an idle machine: only a test that fails waits that long."""


async def eventually(
    probe: Callable[[], Awaitable[T]], *, within_seconds: float = PATIENCE_SECONDS, what: str = ""
) -> T:
    """The first truthy answer of ``probe``; fails the test with the last answer when none comes in time."""
    deadline = time.monotonic() + within_seconds
    asked = time.monotonic()
    answer = await probe()
    while not answer:
        if time.monotonic() > deadline:
            msg = f"{what or 'the condition'} did not come true within {within_seconds} s; last answer: {answer!r}"
            raise AssertionError(msg)
        # As long a pause as the answer took: what is waited for needs the server, too.
        await asyncio.sleep(max(0.02, time.monotonic() - asked))
        asked = time.monotonic()
        answer = await probe()
    return answer


def wait_until(probe: Callable[[], T], *, within_seconds: float = PATIENCE_SECONDS, what: str = "") -> T:
    """`eventually` for code without an event loop."""
    deadline = time.monotonic() + within_seconds
    answer = probe()
    while not answer:
        if time.monotonic() > deadline:
            msg = f"{what or 'the condition'} did not come true within {within_seconds} s; last answer: {answer!r}"
            raise AssertionError(msg)
        time.sleep(0.02)
        answer = probe()
    return answer
