"""Which states a run process set itself, and whether it is paused, as its slot hears of it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import State, StateDetails, StateType

from services.executor.messages import ProcessMessage, RunPaused, SettingState, StateSet
from services.executor.process.own_states import OwnStates

RUN = UUID(int=1)
SUBFLOW = UUID(int=2)


class Client:
    """Answers with the states that it is given, in order; an exception is raised."""

    def __init__(self, *answers: State[Any] | Exception) -> None:
        self._answers = iter(answers)

    def call(self, run_id: UUID) -> Any:
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(state=answer)

    async def call_async(self, run_id: UUID) -> Any:
        return self.call(run_id)


def state(kind: StateType, *, suspended: bool = False) -> State[Any]:
    return State(id=uuid4(), type=kind, state_details=StateDetails(pause_reschedule=suspended))


@pytest.fixture
def told() -> list[ProcessMessage]:
    return []


@pytest.fixture
def own(told: list[ProcessMessage]) -> OwnStates:
    return OwnStates(str(RUN), told.append)


def _set(own: OwnStates, client: Client, run_id: UUID, *, awaited: bool) -> Any:
    call = own._setting(Client.call_async if awaited else Client.call, awaited=awaited)
    return asyncio.run(call(client, run_id)) if awaited else call(client, run_id)


@pytest.mark.parametrize("awaited", [False, True])
def test_a_state_is_reported_before_and_after_it_is_set(
    own: OwnStates, told: list[ProcessMessage], *, awaited: bool
) -> None:
    running = state(StateType.RUNNING)
    assert _set(own, Client(running), RUN, awaited=awaited).state is running
    assert told == [SettingState(), StateSet(str(running.id))]


@pytest.mark.parametrize("awaited", [False, True])
def test_a_request_without_a_response_is_reported_and_raises(
    own: OwnStates, told: list[ProcessMessage], *, awaited: bool
) -> None:
    with pytest.raises(OSError, match="away"):
        _set(own, Client(OSError("away")), RUN, awaited=awaited)
    assert told == [SettingState(), StateSet(None)]


def test_a_subflow_sets_no_state_of_the_run(own: OwnStates, told: list[ProcessMessage]) -> None:
    _set(own, Client(state(StateType.RUNNING)), SUBFLOW, awaited=False)
    assert told == []


def test_the_process_is_paused_from_the_first_pause_to_the_end_of_the_last(
    own: OwnStates, told: list[ProcessMessage]
) -> None:
    paused = state(StateType.PAUSED)
    _set(own, Client(paused), SUBFLOW, awaited=False)
    _set(own, Client(paused), RUN, awaited=False)
    read = own._reading(Client.call, awaited=False)
    read(Client(state(StateType.RUNNING)), SUBFLOW)
    read(Client(state(StateType.RUNNING)), RUN)
    assert [message for message in told if isinstance(message, RunPaused)] == [RunPaused(True), RunPaused(False)]


def test_a_run_that_was_suspended_does_not_wait_in_its_process(own: OwnStates, told: list[ProcessMessage]) -> None:
    _set(own, Client(state(StateType.PAUSED, suspended=True)), RUN, awaited=False)
    assert not [message for message in told if isinstance(message, RunPaused)]
