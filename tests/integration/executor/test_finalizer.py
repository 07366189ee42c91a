"""A run whose process has ended is settled in Prefect, as its end asks; and no more when it is settled once more."""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from services.executor.finalizing import finalizer
from services.executor.finalizing.finalizer import Finalizer, UnsettledError
from services.executor.messages import FinalizeRun
from services.executor.process_exits import EndReason, RunEnd
from services.prefect_api.client import PrefectApi, connect
from services.prefect_api.deployments import register

MESSAGE = "why it ended"


class Runs:
    """Runs in Prefect, and what a finalizer makes of them."""

    def __init__(self, api: PrefectApi) -> None:
        self.api = api

    async def new(self, kind: str, **state: Any) -> str:
        """A run without a deployment, which was running before it came into that state."""
        flow = await self.api.request("POST", "/flows/", json={"name": f"flow-{uuid.uuid4().hex[:8]}"})
        body = {"flow_id": flow["id"], "state": {"type": "RUNNING"}}
        run_id = str((await self.api.request("POST", "/flow_runs/", json=body))["id"])
        await self.set(run_id, kind, **state)
        return run_id

    async def set(self, run_id: str, kind: str, **state: Any) -> None:
        body = {"state": {"type": kind, **state}, "force": True}
        await self.api.request("POST", f"/flow_runs/{run_id}/set_state", json=body)

    async def state(self, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self.api.request("GET", f"/flow_runs/{run_id}"))["state"]
        return found

    async def finalize(self, run_id: str, reason: EndReason) -> tuple[str, str, str]:
        """Type, name and message of the run's state after its finalizer."""
        instruction = FinalizeRun(run_id, RunEnd(reason, MESSAGE))
        await Finalizer(instruction, environment={}, shelf=Path("/nowhere"))._settle()
        state = await self.state(run_id)
        return state["type"], state["name"], state["message"]


@pytest_asyncio.fixture
async def runs(prefect_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Runs]:
    async with connect() as api:
        assert api.url == prefect_url
        monkeypatch.setattr(finalizer, "flow_run_logger", lambda _: logging.getLogger("test"))
        yield Runs(api)


@pytest.mark.parametrize("reason", [EndReason.CRASHED, EndReason.LOST, EndReason.RESTORED])
@pytest.mark.parametrize("kind", ["RUNNING", "PENDING"])
async def test_a_run_that_nobody_executes_any_more_is_crashed(runs: Runs, reason: EndReason, kind: str) -> None:
    run_id = await runs.new(kind)
    assert await runs.finalize(run_id, reason) == ("CRASHED", "Crashed", MESSAGE)


async def test_a_run_that_was_to_be_cancelled_is_cancelled_however_its_process_ended(runs: Runs) -> None:
    run_id = await runs.new("CANCELLING")
    assert (await runs.finalize(run_id, EndReason.CRASHED))[0] == "CANCELLED"
    other = await runs.new("RUNNING")
    assert (await runs.finalize(other, EndReason.CANCELLED))[0] == "CANCELLED"


async def test_a_run_over_its_time_says_so(runs: Runs) -> None:
    run_id = await runs.new("RUNNING")
    assert await runs.finalize(run_id, EndReason.TIMED_OUT) == ("FAILED", "TimedOut", MESSAGE)


async def test_a_run_over_its_time_that_may_be_tried_again_begins_anew(runs: Runs) -> None:
    run_id = await runs.new("RUNNING")
    policy = {"empirical_policy": {"retries": 2, "retry_delay": 0}}
    await runs.api.request("PATCH", f"/flow_runs/{run_id}", json=policy)
    assert await runs.finalize(run_id, EndReason.TIMED_OUT) == ("SCHEDULED", "AwaitingRetry", MESSAGE)
    found = await runs.api.request("GET", f"/flow_runs/{run_id}")
    assert found["empirical_policy"]["retry_type"] != "in_process", "its next attempt is for another process"


async def test_a_run_that_is_handed_back_is_scheduled_now(runs: Runs) -> None:
    run_id = await runs.new("RUNNING")
    assert await runs.finalize(run_id, EndReason.HANDED_BACK) == ("SCHEDULED", "AwaitingRetry", MESSAGE)
    assert (await runs.state(run_id))["state_details"]["scheduled_time"] is not None


@pytest.mark.parametrize("reason", [EndReason.LOST, EndReason.RESTORED])
async def test_a_lost_run_starts_again_where_its_deployment_wants_that(runs: Runs, reason: EndReason) -> None:
    body = {"name": "d", "job_variables": {"sluice_on_lost": "restart"}}
    deployment_id = await register(runs.api, flow=f"flow-{uuid.uuid4().hex[:8]}", body=body)
    created = await runs.api.request("POST", f"/deployments/{deployment_id}/create_flow_run", json={})
    await runs.set(created["id"], "RUNNING")
    assert await runs.finalize(created["id"], reason) == ("SCHEDULED", "AwaitingRetry", MESSAGE)


@pytest.mark.parametrize(
    ("reason", "kind"),
    [(EndReason.CRASHED, "COMPLETED"), (EndReason.CANCELLED, "FAILED"), (EndReason.HANDED_BACK, "SCHEDULED")],
)
async def test_a_run_that_needs_no_process_stays_as_it_is(runs: Runs, reason: EndReason, kind: str) -> None:
    run_id = await runs.new(kind)
    before = await runs.state(run_id)
    await runs.finalize(run_id, reason)
    assert (await runs.state(run_id))["id"] == before["id"]


@pytest.mark.parametrize("reason", [EndReason.CRASHED, EndReason.CANCELLED, EndReason.HANDED_BACK])
async def test_a_finalizer_that_was_interrupted_is_repeated_without_another_state(
    runs: Runs, reason: EndReason
) -> None:
    run_id = await runs.new("RUNNING")
    first = await runs.finalize(run_id, reason)
    state_id = (await runs.state(run_id))["id"]
    assert await runs.finalize(run_id, reason) == first
    assert (await runs.state(run_id))["id"] == state_id


async def test_a_run_that_was_deleted_needs_nothing(runs: Runs) -> None:
    instruction = FinalizeRun(str(uuid.uuid4()), RunEnd(EndReason.CRASHED, MESSAGE))
    await Finalizer(instruction, environment={}, shelf=Path("/nowhere"))._settle()


async def test_a_run_that_still_needs_a_process_is_not_taken_for_settled(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: Any) -> None: ...

    monkeypatch.setattr(Finalizer, "_crash", nothing)
    run_id = await runs.new("RUNNING")
    with pytest.raises(UnsettledError, match="Running still"):
        await runs.finalize(run_id, EndReason.CRASHED)


async def test_the_subflows_of_a_run_that_has_ended_end_with_it(runs: Runs) -> None:
    run_id = await runs.new("RUNNING")
    task = {"flow_run_id": run_id, "task_key": "sub", "dynamic_key": "0", "state": {"type": "RUNNING"}}
    task_id = (await runs.api.request("POST", "/task_runs/", json=task))["id"]
    flow = await runs.api.request("POST", "/flows/", json={"name": f"sub-{uuid.uuid4().hex[:8]}"})
    body = {"flow_id": flow["id"], "parent_task_run_id": task_id, "state": {"type": "RUNNING"}}
    sub_id = (await runs.api.request("POST", "/flow_runs/", json=body))["id"]
    await runs.finalize(run_id, EndReason.CRASHED)
    assert (await runs.state(sub_id))["type"] in {"CRASHED", "CANCELLED", "FAILED"}
