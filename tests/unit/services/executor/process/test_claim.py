from datetime import UTC, datetime, timedelta

import pytest

from services.executor.process.claim import Claim, ClaimLater, Gone, decide, is_retrying

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_a_scheduled_run_whose_time_has_come_is_claimed():
    assert decide(state_type="SCHEDULED", retrying=False, scheduled=NOW - timedelta(days=1), now=NOW) == Claim()
    assert decide(state_type="SCHEDULED", retrying=False, scheduled=None, now=NOW) == Claim()


def test_a_run_is_waited_for_until_its_time():
    later = NOW + timedelta(seconds=5)
    assert decide(state_type="SCHEDULED", retrying=False, scheduled=later, now=NOW) == ClaimLater(later)


@pytest.mark.parametrize(
    "state", ["PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED", "CANCELLING", "PAUSED", None]
)
def test_a_run_in_any_other_state_is_left_alone(state):
    assert isinstance(decide(state_type=state, retrying=False, scheduled=None, now=NOW), Gone)


def test_a_run_between_two_tries_is_left_to_its_own_process():
    assert is_retrying(state_name="AwaitingRetry", retry_type="in_process")
    assert isinstance(decide(state_type="SCHEDULED", retrying=True, scheduled=None, now=NOW), Gone)


@pytest.mark.parametrize(
    ("name", "retry_type"), [("AwaitingRetry", "reschedule"), ("AwaitingRetry", None), ("Resuming", "in_process")]
)
def test_a_run_that_someone_scheduled_again_is_not_taken_for_one_between_two_tries(name, retry_type):
    assert not is_retrying(state_name=name, retry_type=retry_type)
