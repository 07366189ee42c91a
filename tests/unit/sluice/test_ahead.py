"""An answer that is there before its wait has tidied up."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any
from uuid import uuid4

import pytest

from sluice.ahead import answer_of, ended, in_thread


class Leave(BaseException):
    """As Prefect's `Pause` is one."""


class Tidying:
    """A wait that answers at once and tidies up until it may end."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.tidied = False

    async def __call__(self, answer: asyncio.Future[str]) -> str:
        answer.set_result("yes")
        await asyncio.to_thread(self.may_end.wait)
        self.tidied = True
        return "too late"


async def test_the_answer_does_not_wait_for_the_tidying_up_and_the_runs_next_wait_does() -> None:
    run, first, began = uuid4(), Tidying(), False

    async def second(answer: asyncio.Future[str]) -> str:
        nonlocal began
        began = True
        assert first.tidied
        return "again"

    assert await answer_of(run, first) == "yes"
    assert not first.tidied
    waiting = asyncio.create_task(answer_of(run, second))
    await asyncio.sleep(0.05)
    assert not began
    first.may_end.set()
    assert await waiting == "again"


async def test_two_waits_at_the_same_time_do_not_wait_for_each_other() -> None:
    run, unanswered = uuid4(), asyncio.Event()

    async def first(answer: asyncio.Future[str]) -> str:
        await unanswered.wait()
        return "first"

    async def second(answer: asyncio.Future[str]) -> str:
        return "second"

    waiting = asyncio.create_task(answer_of(run, first))
    await asyncio.sleep(0.01)
    assert await asyncio.wait_for(answer_of(run, second), 1) == "second"
    unanswered.set()
    assert await waiting == "first"


@pytest.mark.parametrize("raised", [Leave, ValueError, TimeoutError])
async def test_what_a_wait_raises_is_raised(raised: type[BaseException]) -> None:
    async def wait(answer: asyncio.Future[str]) -> str:
        raise raised

    with pytest.raises(raised):
        await answer_of(uuid4(), wait)
    with pytest.raises(raised):
        in_thread(None, lambda: answer_of(uuid4(), wait))


async def test_a_wait_that_is_cancelled_ends() -> None:
    ends = asyncio.Event()

    async def wait(answer: asyncio.Future[str]) -> str:
        try:
            await asyncio.sleep(60)
        finally:
            ends.set()
        return "never"

    waiting = asyncio.create_task(answer_of(uuid4(), wait))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ends.is_set()


async def test_what_goes_wrong_behind_the_answer_is_nobodys_business() -> None:
    run = uuid4()

    async def wait(answer: asyncio.Future[str]) -> str:
        answer.set_result("yes")
        await asyncio.sleep(0.01)
        raise OSError("Prefect is away")

    assert await answer_of(run, wait) == "yes"
    await asyncio.wait_for(ended(run), 1)


def test_a_thread_has_its_answer_at_once_and_the_wait_tidies_up_on() -> None:
    run, wait = uuid4(), Tidying()
    assert in_thread(run, lambda: answer_of(run, wait)) == "yes"
    assert not wait.tidied
    wait.may_end.set()
    in_thread(run, lambda: _after(run))
    assert wait.tidied


async def _after(run: object) -> None:
    await asyncio.wait_for(ended(run), 2)  # type: ignore[arg-type]


def test_an_interruption_before_the_thread_has_begun_keeps_it_from_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    begin, run = threading.Event(), asyncio.run
    began: list[str] = []

    async def wait(answer: asyncio.Future[str]) -> str:
        began.append("waited")
        return "never"

    def late(coroutine: Any) -> None:
        begin.wait(5)
        run(coroutine)
        began.append("ended")

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sluice.ahead.asyncio.run", late)
    monkeypatch.setattr("sluice.ahead.concurrent.futures.wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        in_thread(None, lambda: answer_of(uuid4(), wait))
    begin.set()
    for thread in threading.enumerate():
        if thread.name == "sluice-wait":
            thread.join(5)
    assert began == ["ended"]


def test_an_interruption_of_the_thread_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    run, ends = uuid4(), threading.Event()

    async def wait(answer: asyncio.Future[str]) -> str:
        try:
            await asyncio.sleep(60)
        finally:
            ends.set()
        return "never"

    def interrupted(*_: object, **__: object) -> None:
        time.sleep(0.05)
        raise KeyboardInterrupt

    monkeypatch.setattr("sluice.ahead.concurrent.futures.wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        in_thread(run, lambda: answer_of(run, wait))
    assert ends.wait(2)
