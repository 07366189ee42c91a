"""Prefect's own pause: a flow looks at its run when the run may have left the pause, and at Prefect's interval."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from services.executor.process import pauses
from services.executor.process.pauses import _hearing, _Looks
from services.prefect_api.runs import COMMIT_PAUSES
from sluice.hearing import Hearing

RUN = UUID(int=1)


class Client:
    """Shows a run in the states that it is given, one after the other."""

    def __init__(self, *states: Any) -> None:
        self.states = list(states)

    @asynccontextmanager
    async def connected(self) -> Any:
        yield self

    async def read_flow_run(self, run_id: UUID) -> Any:
        assert run_id == RUN
        return SimpleNamespace(state=self.states.pop(0))


class Heard(Hearing):
    """Notes since when the run is watched, and hears what the test says."""

    def __init__(self) -> None:
        super().__init__(RUN)
        self.since: list[Any] = []
        self.watched = asyncio.Event()

    def watch(self, entered: Any) -> None:
        self.since.append(entered)
        self.watched.set()

    def hears(self) -> None:
        self._told = True
        self.hint.set()


PAUSED = SimpleNamespace(is_paused=lambda: True, timestamp="entered")
RUNNING = SimpleNamespace(is_paused=lambda: False, timestamp="later")


@pytest.fixture
def heard() -> Heard:
    return Heard()


def looks(heard: Heard, client: Client, monkeypatch: pytest.MonkeyPatch) -> _Looks:
    monkeypatch.setattr(pauses, "get_client", client.connected)
    return _Looks(RUN, heard)


@pytest.mark.parametrize("state", [RUNNING, None])
async def test_a_run_that_has_left_the_pause_before_is_read_at_once(
    heard: Heard, monkeypatch: pytest.MonkeyPatch, state: Any
) -> None:
    async with asyncio.timeout(30):
        await looks(heard, Client(state), monkeypatch).wait(3600)
    assert heard.since == []


async def test_a_hint_ends_the_pause_between_two_reads(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = asyncio.create_task(looks(heard, Client(PAUSED), monkeypatch).wait(3600))
    await heard.watched.wait()
    heard.hears()
    async with asyncio.timeout(30):
        await waiting
    assert heard.since == ["entered"]


async def test_after_a_hint_the_run_is_read_until_its_state_is_committed(
    heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    one = looks(heard, Client(PAUSED), monkeypatch)
    heard.hears()
    await one.wait(3600)

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    for _ in COMMIT_PAUSES:
        await one.wait(3600)
    assert tuple(slept) == COMMIT_PAUSES


async def test_without_a_hint_prefects_own_interval_holds(heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    one = looks(heard, Client(PAUSED), monkeypatch)
    await one.wait(0.001)
    await one.wait(0.001)
    assert heard.since == ["entered"], "its pause is asked for once"


async def test_outside_of_a_run_prefects_own_function_says_what_is_wrong() -> None:
    async def own(*_: Any, **__: Any) -> None:
        raise RuntimeError("no flow run")

    apause, _ = _hearing(own)
    with pytest.raises(RuntimeError, match="no flow run"):
        await apause(timeout=1)
    assert apause.__name__ == "own"
