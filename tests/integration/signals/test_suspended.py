"""Runs that wait without a process: they start again from their top and repeat nothing that was done or answered."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import get_client
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import Abort, Pause
from prefect.flow_engine import run_flow

import sluice
from sluice.own_run import OwnRun
from tests.integration.signals.conftest import Desk, in_thread, new_key
from tests.support import waiting_flows as flows
from tests.support.waiting import eventually
from tests.support.warm import run_module


class Suspending:
    """A run of a flow that suspends, and what an executor does with it."""

    def __init__(self, submission: Desk, tmp_path: Path) -> None:
        self._submission = submission
        self._flow: Any = flows.suspending
        self._path = tmp_path / "done.txt"
        self.key = new_key()
        self.run_id = ""
        self._parameters: dict[str, Any] = {}

    async def create(self, **options: Any) -> None:
        await self.create_of(flows.suspending, path=str(self._path), key=self.key, **options)

    async def create_of(self, flow: Any, **parameters: Any) -> None:
        self._flow, self._parameters = flow, parameters
        async with get_client() as client:
            flow_id = await client.create_flow(flow)
            entrypoint = f"tests/support/waiting_flows.py:{flow.fn.__name__}"
            deployment = await client.create_deployment(flow_id, "test", entrypoint=entrypoint)
            created = await client.create_flow_run_from_deployment(deployment, parameters=self._parameters)
        self.run_id = str(created.id)

    async def attempt(self) -> Any:
        """Run it once, as far as it gets."""

        def work() -> Any:
            with get_client(sync_client=True) as client:
                run = client.read_flow_run(self.run_id)
            return run_flow(self._flow, flow_run=run, parameters=self._parameters)

        return await asyncio.wait_for(in_thread(work), 30)

    async def suspend(self) -> None:
        with pytest.raises(Pause):
            await self.attempt()
        assert (await self._submission.runs.read(self.run_id)).suspended

    async def resuming(self) -> None:
        """Return once the run is scheduled to start again."""

        async def probe() -> bool:
            return (await self._submission.runs.read(self.run_id)).state_type == "SCHEDULED"

        await eventually(probe, what="the run resumes")

    @property
    def done(self) -> int:
        return len(self._path.read_text().splitlines())


@pytest.fixture
def suspending(resumer: Desk, tmp_path: Path) -> Suspending:
    return Suspending(resumer, tmp_path)


async def test_the_answer_starts_the_flow_again_without_repeating_its_tasks(
    resumer: Desk, suspending: Suspending
) -> None:
    await suspending.create(waits=2)
    for number in range(2):
        await suspending.suspend()
        record = await resumer.ask(key=f"{suspending.key}-{number}", input={"n": number})
        assert record.status == "applied"
        await suspending.resuming()
    assert await suspending.attempt() == [42, {"n": 0}, {"n": 1}]
    assert suspending.done == 1
    assert (await resumer.state(suspending.run_id))["tags"] == []


async def test_prefects_engine_runs_it_in_processes_of_its_own(
    resumer: Desk, suspending: Suspending, checkout: Path
) -> None:
    await suspending.create()
    environ = {**os.environ, "PREFECT__FLOW_RUN_ID": suspending.run_id}

    def engine() -> None:
        run_module("prefect.engine", cwd=checkout, env=environ).check_returncode()

    await asyncio.to_thread(engine)
    await resumer.waiting(suspending.run_id)
    assert (await resumer.ask(run_id=suspending.run_id)).status == "applied"
    await suspending.resuming()
    await asyncio.to_thread(engine)
    assert (await resumer.state(suspending.run_id))["type"] == "COMPLETED"
    assert suspending.done == 1


async def test_an_early_signal_resumes_it_as_soon_as_it_is_suspended(resumer: Desk, suspending: Suspending) -> None:
    await suspending.create()
    assert (await resumer.ask(key=f"{suspending.key}-0", input={"early": True})).status == "buffered"
    with pytest.raises(Pause):
        await suspending.attempt()
    await suspending.resuming()
    assert await suspending.attempt() == [42, {"early": True}]


async def test_the_resumer_ends_the_wait_of_a_suspended_run_in_time(resumer: Desk, suspending: Suspending) -> None:
    await suspending.create(timeout=2)
    await suspending.suspend()
    await resumer.told(suspending.run_id, "reminder")
    await suspending.resuming()
    assert await suspending.attempt() == [42, "nobody"]


async def test_the_time_for_all_of_several_answers_does_not_begin_anew_with_each(
    resumer: Desk, suspending: Suspending
) -> None:
    keys = [new_key(), new_key()]
    await suspending.create_of(flows.suspending_for_all, keys=keys, timeout=60)
    await suspending.suspend()
    first = await resumer.runs.read(suspending.run_id)
    assert (await resumer.ask(key=keys[0])).status == "applied"
    await suspending.resuming()
    await suspending.suspend()
    second = await resumer.runs.read(suspending.run_id)
    assert second.keys == (keys[1],)
    assert second.deadline == first.entered + timedelta(seconds=60)


async def test_a_rejection_is_raised_when_the_flow_starts_again(resumer: Desk, suspending: Suspending) -> None:
    await suspending.create()
    await suspending.suspend()
    await resumer.ask(key=f"{suspending.key}-0", action="reject", by="ann", reason="no")
    await suspending.resuming()
    with pytest.raises(sluice.SignalRejected, match="rejected by ann: no"):
        await suspending.attempt()
    assert (await resumer.state(suspending.run_id))["type"] == "FAILED"


@pytest.mark.parametrize("how", ["answered", "rejected", "timed out", "resumed in Prefect"])
async def test_the_tag_goes_when_the_wait_ends_though_the_flow_has_not_come_to_it_again(
    resumer: Desk, suspending: Suspending, how: str
) -> None:
    await suspending.create(timeout=2 if how == "timed out" else 600)
    await suspending.suspend()
    if how == "resumed in Prefect":
        await resumer.api.request("POST", f"/flow_runs/{suspending.run_id}/resume", json={"run_input": {"go_on": True}})
    elif how != "timed out":
        await resumer.ask(key=f"{suspending.key}-0", action="reject" if how == "rejected" else "resume")
    await suspending.resuming()

    async def untagged() -> bool:
        return not (await resumer.state(suspending.run_id))["tags"]

    await eventually(untagged, what="the run says no more that it waits")


async def test_a_caught_rejection_is_remembered_by_later_attempts(resumer: Desk, suspending: Suspending) -> None:
    await suspending.create(waits=2, catch=True)
    await suspending.suspend()
    await resumer.ask(key=f"{suspending.key}-0", action="reject", by="ann")
    await suspending.resuming()
    await suspending.suspend()
    await resumer.ask(key=f"{suspending.key}-1")
    await suspending.resuming()
    assert await suspending.attempt() == [42, "rejected by ann", {}]


async def test_a_retry_of_a_failed_run_keeps_answers_and_asks_again_where_there_was_none(
    resumer: Desk, suspending: Suspending
) -> None:
    await suspending.create(waits=2)
    await suspending.suspend()
    await resumer.ask(key=f"{suspending.key}-0")
    await suspending.resuming()
    await suspending.suspend()
    await resumer.ask(key=f"{suspending.key}-1", action="reject", by="ann")
    await suspending.resuming()
    with pytest.raises(sluice.SignalRejected):
        await suspending.attempt()
    body = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}}
    await resumer.api.request("POST", f"/flow_runs/{suspending.run_id}/set_state", json=body)
    await suspending.suspend()
    assert (await resumer.runs.read(suspending.run_id)).keys == (f"{suspending.key}-1",)
    await resumer.ask(key=f"{suspending.key}-1", input={"now": "yes"})
    await suspending.resuming()
    assert await suspending.attempt() == [42, {}, {"now": "yes"}]


async def test_plain_suspended_runs_are_rejected_into_cancelled(resumer: Desk, suspending: Suspending) -> None:
    await suspending.create()
    for kind, details in (("RUNNING", {}), ("PAUSED", {"pause_key": "1", "pause_reschedule": True})):
        await resumer.set_state(suspending.run_id, kind, name="Suspended", state_details=details)
    assert (await resumer.ask(run_id=suspending.run_id, action="reject", by="ann", reason="no")).status == "applied"
    state = await resumer.state(suspending.run_id)
    assert state["type"] == "CANCELLED"
    assert state["message"].startswith("Rejected by ann: no")


@pytest.mark.parametrize("suspend", [True, False])
@pytest.mark.parametrize("state", ["AwaitingRetry", "Cancelled"])
async def test_a_run_that_is_taken_from_its_process_before_it_can_wait_keeps_its_state(
    suspending: Suspending, resumer: Desk, monkeypatch: pytest.MonkeyPatch, suspend: bool, state: str
) -> None:
    """As by an executor that takes this one for dead, or by hand: the flow has not failed."""
    enter = OwnRun.pause

    async def enter_too_late(self: OwnRun, *args: Any, **options: Any) -> Any:
        kind = StateType.SCHEDULED if state == "AwaitingRetry" else StateType.CANCELLED
        async with get_client() as client:
            await client.set_flow_run_state(UUID(suspending.run_id), State(type=kind, name=state), force=True)
        return await enter(self, *args, **options)

    monkeypatch.setattr(OwnRun, "pause", enter_too_late)
    await suspending.create_of(flows.approving, label=suspending.key, key=suspending.key, options={"suspend": suspend})
    with pytest.raises(Pause if state == "AwaitingRetry" else Abort):
        await suspending.attempt()
    after = await resumer.runs.read(suspending.run_id)
    assert (after.state_name, list(after.keys)) == (state, [])


@pytest.mark.parametrize("suspend", [True, False])
@pytest.mark.parametrize("answered", ["before the second request", "afterwards"])
async def test_a_pause_whose_confirmation_was_lost_is_entered_once(
    suspending: Suspending, resumer: Desk, monkeypatch: pytest.MonkeyPatch, suspend: bool, answered: str
) -> None:
    """Prefect's client sends the request again, and the server refuses it."""
    enter, entered = OwnRun.pause, asyncio.Event()

    async def enter_twice(self: OwnRun, *args: Any, **options: Any) -> Any:
        first, _ = await enter(self, *args, **options)
        entered.set()

        async def left() -> bool:
            now = (await self.read()).state
            return first is not None and now is not None and now.id != first.id

        if answered == "before the second request":
            await eventually(left, what="the wait to be left")
        return await enter(self, *args, **options)

    monkeypatch.setattr(OwnRun, "pause", enter_twice)
    await suspending.create_of(flows.approving, label=suspending.key, key=suspending.key, options={"suspend": suspend})
    if answered == "before the second request":
        assert (await resumer.ask(key=suspending.key, input={"n": 1})).status == "buffered"
    attempt = asyncio.create_task(suspending.attempt())
    if answered == "afterwards" and not suspend:
        await eventually(lambda: asyncio.sleep(0, entered.is_set()))
        assert (await resumer.ask(key=suspending.key, input={"n": 1})).status == "applied"
    if suspend:
        with pytest.raises(Pause):
            await attempt
        if answered == "afterwards":
            assert (await resumer.ask(key=suspending.key, input={"n": 1})).status == "applied"
        await suspending.resuming()
        attempt = asyncio.create_task(suspending.attempt())
    assert await attempt == {"n": 1}
    assert (await resumer.state(suspending.run_id))["tags"] == []
