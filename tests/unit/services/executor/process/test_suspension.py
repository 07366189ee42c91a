"""What a run process makes of being told that its run was suspended."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import prefect.flow_engine
import pytest
from prefect._flow_run_suspension import FlowRunSuspensionRequest

from services.executor.process.suspension import Suspension

NOW = datetime(2026, 1, 31, tzinfo=UTC)


@pytest.fixture
def listening(monkeypatch: pytest.MonkeyPatch):
    """A suspension that the engine listens to, and how to find out whether it was asked to stop."""
    own = prefect.flow_engine.observe_flow_run_suspension  # type: ignore[attr-defined]
    monkeypatch.setattr(prefect.flow_engine, "observe_flow_run_suspension", own)  # put back in the end
    run_id = uuid4()
    suspension = Suspension(str(run_id))

    def engine(*, meanwhile=lambda: None) -> bool:
        suspension.take_over()
        request = FlowRunSuspensionRequest()
        with prefect.flow_engine.observe_flow_run_suspension(run_id, request):  # type: ignore[attr-defined]
            meanwhile()
        return request.is_requested()

    return suspension, engine


def ask(suspension: Suspension, *, seconds: float) -> None:
    suspension.ask(str(uuid4()), NOW + timedelta(seconds=seconds))


def test_a_suspension_while_the_flow_runs_stops_it(listening):
    suspension, engine = listening
    suspension.claimed(NOW)
    assert engine(meanwhile=lambda: ask(suspension, seconds=1))


def test_a_suspension_between_claim_and_start_is_not_forgotten(listening):
    suspension, engine = listening
    suspension.claimed(NOW)
    ask(suspension, seconds=1)
    assert engine()


@pytest.mark.parametrize("early", [True, False])
def test_a_suspension_from_before_the_claim_is_the_one_that_was_resumed(listening, early):
    suspension, engine = listening
    if early:
        ask(suspension, seconds=-1)
    suspension.claimed(NOW)
    if not early:
        ask(suspension, seconds=-1)
    assert not engine()
