from datetime import UTC, datetime, timedelta

import pytest

from services.executor.messages import NotClaimed
from services.executor.process.claim import refusal

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def refused(state: str | None, *, name: str = "Scheduled", retry: str | None = None, due: datetime | None = None):
    return refusal(state_type=state, state_name=name, retry_type=retry, scheduled=due, now=NOW)


def test_a_scheduled_run_whose_time_has_come_is_claimed():
    assert refused("SCHEDULED", due=NOW - timedelta(days=1)) is None
    assert refused("SCHEDULED") is None


def test_a_run_is_waited_for_until_its_time():
    later = NOW + timedelta(seconds=5)
    assert refused("SCHEDULED", due=later) == NotClaimed("the run is not due", until=later.timestamp())


@pytest.mark.parametrize(
    "state", ["PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED", "CANCELLING", "PAUSED", None]
)
def test_a_run_in_any_other_state_is_left_alone(state):
    found = refused(state)
    assert found is not None
    assert found.until is None


def test_a_run_between_two_tries_is_left_to_its_own_process():
    found = refused("SCHEDULED", name="AwaitingRetry", retry="in_process")
    assert found == NotClaimed("the run's own process is about to try again")


@pytest.mark.parametrize(
    ("name", "retry_type"), [("AwaitingRetry", "reschedule"), ("AwaitingRetry", None), ("Resuming", "in_process")]
)
def test_a_run_that_someone_scheduled_again_is_not_taken_for_one_between_two_tries(name, retry_type):
    assert refused("SCHEDULED", name=name, retry=retry_type) is None
