"""Pauses grow with each failure up to a limit, and begin anew once it works."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from config.settings import ListenerSettings
from services.common.backoff import Backoff, ended, heed_cancellation


def test_pauses_double_up_to_the_longest_with_jitter_below() -> None:
    backoff = Backoff("read", first_seconds=1, longest_seconds=4)
    for most in (1, 2, 4, 4):
        assert most / 2 <= backoff.failed(OSError("away")) <= most


def test_after_a_success_they_begin_anew_and_the_trouble_is_over() -> None:
    backoff = Backoff.of("read", ListenerSettings(backoff_seconds=0.5))
    assert backoff.status(ready=True) == {"ready": True}
    backoff.failed(OSError("away"))
    backoff.failed(OSError("still away"))
    assert backoff.status(ready=True) == {"ready": True, "degraded": "still away"}
    backoff.worked()
    assert backoff.trouble is None
    assert backoff.failed(OSError("again")) <= 0.5


def test_an_error_without_words_is_told_by_its_kind() -> None:
    backoff = Backoff("read", first_seconds=1, longest_seconds=4)
    backoff.failed(TimeoutError())
    assert backoff.trouble == "TimeoutError"


def test_each_change_of_condition_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    backoff = Backoff("read the stream", first_seconds=1, longest_seconds=4)
    for _ in range(3):
        backoff.failed(OSError("away"))
    backoff.worked()
    backoff.worked()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all("read the stream" in line for line in lines)


async def test_a_cancellation_that_a_call_swallowed_is_heeded() -> None:
    async def work() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        heed_cancellation()
        raise AssertionError("it went on")

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    heed_cancellation()


async def test_a_task_is_cancelled_until_it_ends() -> None:
    heard = []

    async def stubborn() -> None:
        for _ in range(2):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                heard.append(1)

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await asyncio.wait_for(ended(task, every_seconds=0.01), 10)
    assert heard == [1, 1]
    await ended()
