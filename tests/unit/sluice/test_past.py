"""What of a run's past belongs to its present attempt."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from prefect.client.schemas.objects import State
from prefect.states import AwaitingRetry, Completed, Crashed, Paused, Pending, Running, Scheduled

from sluice.past import this_attempt

WAITED = [Scheduled(), Pending(), Running(), Paused(), Running()]


@pytest.mark.parametrize("end", [Crashed, Completed, AwaitingRetry])
def test_an_attempt_begins_behind_the_end_of_the_one_before(end: Callable[[], State]) -> None:
    again = [Pending(), Running()]
    assert this_attempt([*WAITED, end(), *again]) == again


@pytest.mark.parametrize("state", [AwaitingRetry, Scheduled])
def test_a_run_that_waits_and_is_to_start_again_is_in_the_same_attempt(state: Callable[[], State]) -> None:
    states = [Running(), Paused(), state(), Pending(), Running()]
    assert this_attempt(states) == states
