"""Flows that wait, for tests: run in the test's own process, or by Prefect's engine in another."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from prefect import flow, task
from prefect.cache_policies import INPUTS, RUN_ID
from prefect.runtime import flow_run
from pydantic import BaseModel, field_validator

import sluice
from sluice.own_run import OwnRun

STARTED: dict[str, list[str]] = {}
"""The ids of the runs that began in this process, by the label they were given."""


class Approval(BaseModel):
    approved: bool
    by: str = "nobody"


class Even(BaseModel):
    n: int

    @field_validator("n")
    @classmethod
    def _even(cls, n: int) -> int:
        if n % 2:
            raise ValueError("it must be even")
        return n


def began(label: str) -> None:
    STARTED.setdefault(label, []).append(str(flow_run.id))


@flow
def approving(label: str, key: str | None = None, **options: Any) -> Any:
    """A sync flow with one wait."""
    began(label)
    return sluice.wait_for_signal(key, **options)


@flow
async def approving_async(label: str, key: str | None = None, **options: Any) -> Any:
    """The same as an async flow, whose loop goes on turning while it waits."""
    began(label)
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.01)
            turns += 1

    turning = asyncio.create_task(turn())
    answer = await sluice.wait_for_signal(key, **options)
    turning.cancel()
    return answer, turns


@flow
def looping(label: str, key: str, rounds: int) -> list[Any]:
    """Waits under one key again and again."""
    began(label)
    return [sluice.wait_for_signal(key) for _ in range(rounds)]


@flow
def caught(label: str, key: str) -> str:
    """Takes a rejection as an answer."""
    began(label)
    try:
        sluice.wait_for_signal(key)
    except sluice.SignalRejected as rejected:
        return f"{rejected.by} said {rejected.reason}"
    return "approved"


@task
def ask(key: str) -> Any:
    return sluice.wait_for_signal(key)


@flow
def asking_in_a_task(label: str, key: str) -> Any:
    began(label)
    return ask(key)


@flow
def parent(label: str, key: str) -> Any:
    """Waits in a subflow: that is the run that is paused."""
    return approving(label, key)


@flow
def asking_twice(label: str, keys: list[str]) -> list[Any]:
    """Two tasks that wait at the same time."""
    began(label)
    return [future.result() for future in [ask.submit(key) for key in keys]]


@flow
async def asking_twice_at_once(label: str, keys: list[str]) -> list[Any]:
    """Two coroutines that wait at the same time."""
    began(label)
    return list(await asyncio.gather(*(sluice.wait_for_signal_async(key) for key in keys)))


@flow(persist_result=True)
def waiting_once(path: str, key: str, **options: Any) -> Any:
    """Waits, and leaves what it was answered in the file."""
    answer = sluice.wait_for_signal(key, **options)
    with open(path, "a") as file:  # noqa: PTH123
        file.write(f"{answer!r}\n")
    return answer


@flow(persist_result=True)
def killed_before_its_form(path: str, key: str, **options: Any) -> Any:
    """Is killed as soon as its run is paused, before it has said there what an answer must look like."""

    async def show_form(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    OwnRun.show_form = show_form
    return waiting_once.fn(path, key, **options)


@flow(persist_result=True)
def waiting_below(path: str, key: str) -> Any:
    """Waits in a subflow."""
    return waiting_once(path, key)


@flow(persist_result=True)
def waiting_two_below(path: str, key: str) -> Any:
    """Waits in a subflow of a subflow."""
    return waiting_below(path, key)


@flow
def waiting_once_unkept(path: str, key: str) -> None:
    """Waits, and its result is not kept."""
    waiting_once.fn(path, key)


@flow(persist_result=True)
def waiting_below_and_suspended(path: str, key: str) -> Any:
    """Waits in a subflow whose result is not kept, and then without a process: its flow is begun again from its top."""
    waiting_once_unkept(path, key)
    return sluice.wait_for_signal(f"{key} 2", suspend=True)


@flow(persist_result=True)
def waiting_below_for_each(path: str, key: str) -> Any:
    """Waits in several runs of one subflow, one after the other."""
    return [waiting_once(path, key) for _ in range(2)]


@flow(timeout_seconds=8)
def out_of_time(label: str, key: str) -> Any:
    """Ends by Prefect's own time-out."""
    began(label)
    return sluice.wait_for_signal(key)


@flow
async def calls_a_sync_flow(label: str, key: str) -> Any:
    """A sync flow on the thread of a running loop."""
    return approving(label, key)


@task(persist_result=True, cache_policy=INPUTS + RUN_ID)
def expensive(path: str) -> int:
    """Leaves a line in the file each time that it is really done."""
    with open(path, "a") as file:  # noqa: PTH123
        file.write("done\n")
    return 42


@flow(persist_result=True)
def suspending_for_all(keys: list[str], timeout: float) -> Any:
    return sluice.wait_for_signal(keys=keys, need="all", suspend=True, timeout=timeout, default="not all")


@flow(persist_result=True)
def suspending(path: str, key: str, waits: int = 1, timeout: float | None = None, catch: bool = False) -> Any:
    """Suspends ``waits`` times, each time after a task whose result is kept."""
    answers: list[Any] = [expensive(path)]
    for number in range(waits):
        try:
            answers.append(
                sluice.wait_for_signal(
                    f"{key}-{number}", suspend=True, timeout=timeout, remind_after=0.2, default="nobody"
                )
            )
        except sluice.SignalRejected as rejected:
            if not catch:
                raise
            answers.append(f"rejected by {rejected.by}")
    return answers


@flow
def cancelled_when_rejected(label: str, key: str) -> None:
    began(label)
    sluice.wait_for_signal(key, on_reject="cancel")


@flow
def both(label: str, keys: list[str], need: str, **options: Any) -> Any:
    began(label)
    return sluice.wait_for_signal(keys=keys, need=need, **options)
