"""An answer that is there before its wait has tidied up."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any
from uuid import UUID, uuid4

import pytest

from sluice.ahead import answer_of, in_thread
from tests.support.waiting import eventually


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
    await asyncio.sleep(0.05)  # nothing is to happen
    assert not began
    first.may_end.set()
    assert await waiting == "again"


async def test_waits_of_one_run_at_the_same_time_are_served_one_after_the_other() -> None:
    run, asked = uuid4(), []
    answers: dict[str, asyncio.Event] = {name: asyncio.Event() for name in ("first", "second", "third")}

    async def ask(name: str, answer: asyncio.Future[str]) -> str:
        asked.append(name)
        await answers[name].wait()
        return name

    async def begin(name: str, run: UUID = run) -> str:
        return await answer_of(run, lambda answer: ask(name, answer))

    waiting = {name: asyncio.create_task(begin(name)) for name in answers}
    other = asyncio.create_task(begin("third", uuid4()))
    await asyncio.sleep(0.05)  # nothing more is to happen
    assert sorted(asked) == ["first", "third"], "a wait of another run does not wait for this one's"
    waiting["second"].cancel()
    await asyncio.wait({waiting["second"]})
    await asyncio.sleep(0.05)  # nothing more is to happen
    assert sorted(asked) == ["first", "third"], "the third still waits for the first"
    answers["first"].set()
    await eventually(lambda: asyncio.sleep(0, asked.count("third") == 2))
    for event in answers.values():
        event.set()
    assert [await waiting["first"], await waiting["third"]] == ["first", "third"]
    assert await other == "third"


@pytest.mark.parametrize("raised", [Leave, ValueError, TimeoutError])
async def test_what_a_wait_raises_is_raised(raised: type[BaseException]) -> None:
    async def wait(answer: asyncio.Future[str]) -> str:
        raise raised

    with pytest.raises(raised):
        await answer_of(uuid4(), wait)
    with pytest.raises(raised):
        in_thread(lambda: answer_of(uuid4(), wait))


async def test_a_wait_that_is_cancelled_ends() -> None:
    ends = asyncio.Event()

    async def wait(answer: asyncio.Future[str]) -> str:
        try:
            await asyncio.sleep(60)  # it is cancelled first
        finally:
            ends.set()
        return "never"

    waiting = asyncio.create_task(answer_of(uuid4(), wait))
    await asyncio.sleep(0.01)  # it waits by now, most often
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ends.is_set()


async def test_what_goes_wrong_behind_the_answer_is_nobodys_business() -> None:
    run = uuid4()

    async def wait(answer: asyncio.Future[str]) -> str:
        answer.set_result("yes")
        await asyncio.sleep(0.01)  # after the answer was taken
        raise OSError("Prefect is away")

    async def next_one(answer: asyncio.Future[str]) -> str:
        return "and yes"

    assert await answer_of(run, wait) == "yes"
    assert await asyncio.wait_for(answer_of(run, next_one), 1) == "and yes"


def test_a_thread_has_its_answer_at_once_and_the_wait_tidies_up_on() -> None:
    run, wait = uuid4(), Tidying()
    assert in_thread(lambda: answer_of(run, wait)) == "yes"
    assert not wait.tidied
    wait.may_end.set()

    async def next_one(answer: asyncio.Future[str]) -> str:
        return "tidied" if wait.tidied else "not tidied"

    assert in_thread(lambda: answer_of(run, next_one)) == "tidied"


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
        in_thread(lambda: answer_of(uuid4(), wait))
    begin.set()
    for thread in threading.enumerate():
        if thread.name == "sluice-wait":
            thread.join(5)
    assert began == ["ended"]


def test_an_interruption_of_the_thread_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    run, ends = uuid4(), threading.Event()

    async def wait(answer: asyncio.Future[str]) -> str:
        try:
            await asyncio.sleep(60)  # it is cancelled first
        finally:
            ends.set()
        return "never"

    def interrupted(*_: object, **__: object) -> None:
        time.sleep(0.05)  # Ctrl-C comes while it waits
        raise KeyboardInterrupt

    monkeypatch.setattr("sluice.ahead.concurrent.futures.wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        in_thread(lambda: answer_of(run, wait))
    assert ends.wait(2)
