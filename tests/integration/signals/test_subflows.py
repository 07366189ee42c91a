"""When a flow is tried again, Prefect begins its subflows as new runs: what the old ones were answered is not lost."""

from __future__ import annotations

from typing import Any

import pytest

from services.prefect_api.run_view import RunView
from tests.integration.signals.deployed import Deployed
from tests.support import waiting_flows as flows
from tests.support.waiting import eventually

pytestmark = pytest.mark.slow


async def _crashed(deployed: Deployed, *subflow_runs: RunView) -> None:
    """The run's process is gone, and the executor has told the end of the run and of its subflow runs."""
    await deployed.kill()
    await deployed.set_state("CRASHED", "Crashed", force=True)
    for run in subflow_runs:
        await deployed.submission.set_state(run.run_id, "CRASHED", name="Crashed")


async def _again(deployed: Deployed) -> None:
    await deployed.set_state("SCHEDULED", "AwaitingRetry", force=True)
    await deployed.start()


async def _answered_and_killed(deployed: Deployed, value: dict[str, Any]) -> RunView:
    """The subflow run that was answered, and did not live to use it."""
    child = await deployed.child()
    deployed.stop()
    assert (await deployed.submission.ask(key=deployed.key, input=value)).status == "applied"
    await _crashed(deployed, child, *await _above(deployed, child))
    return child


async def _above(deployed: Deployed, child: RunView) -> list[RunView]:
    """The subflow runs between that one and the run."""
    found: list[RunView] = []
    run_id = child.run_id
    while True:
        run = await deployed.submission.api.request("GET", f"/flow_runs/{run_id}")
        task = await deployed.submission.api.request("GET", f"/task_runs/{run['parent_task_run_id']}")
        run_id = task["flow_run_id"]
        if run_id == deployed.run_id:
            return found
        found.append(await deployed.submission.runs.read(run_id))


@pytest.mark.parametrize("flow", [flows.waiting_below, flows.waiting_two_below])
async def test_an_answer_that_the_killed_subflow_run_did_not_use_is_used_by_the_next_one(
    deployed: Deployed, flow: Any
) -> None:
    await deployed.create(flow)
    await deployed.start()
    child = await _answered_and_killed(deployed, {"n": 1})
    await _again(deployed)
    assert await deployed.ends() == "Completed"
    assert deployed.answers == ["{'n': 1}"]
    assert (await deployed.submission.runs.read(child.run_id)).state_name == "Crashed", "another run took its place"


async def test_it_is_used_by_whoever_comes_after_several_crashes(deployed: Deployed) -> None:
    await deployed.create(flows.waiting_below_for_each)
    await deployed.start()
    await _answered_and_killed(deployed, {"n": 1})
    await _again(deployed)
    second = await deployed.child()
    assert deployed.answers == ["{'n': 1}"]
    await _crashed(deployed, second)
    await _again(deployed)
    third = await eventually(lambda: _other(deployed, second), what="the second subflow waits again")
    assert third.run_id != second.run_id
    assert (await deployed.submission.ask(key=deployed.key, input={"n": 2})).status == "applied"
    assert await deployed.ends() == "Completed"
    assert set(deployed.answers) == {"{'n': 1}", "{'n': 2}"}
    assert deployed.answers[-1] == "{'n': 2}"


async def test_a_subflow_that_was_rejected_asks_again(deployed: Deployed) -> None:
    await deployed.create(flows.waiting_below)
    await deployed.start()
    child = await deployed.child()
    deployed.stop()
    assert (await deployed.submission.ask(key=deployed.key, action="reject")).status == "applied"
    await _crashed(deployed, child)
    await _again(deployed)
    await eventually(lambda: _other(deployed, child), what="it waits again")
    assert (await deployed.submission.ask(key=deployed.key, input={"n": 2})).status == "applied"
    assert await deployed.ends() == "Completed"
    assert deployed.answers == ["{'n': 2}"]


async def test_a_completed_subflow_whose_result_is_not_kept_is_done_again_without_asking(deployed: Deployed) -> None:
    await deployed.create(flows.waiting_below_and_suspended)
    process = await deployed.start()
    await deployed.child()
    assert (await deployed.submission.ask(key=deployed.key, input={"n": 1})).status == "applied"
    await deployed.waits()
    await process.ended()
    assert (await deployed.submission.ask(key=f"{deployed.key} 2", input={"n": 2})).status == "applied"
    await deployed.resuming()
    await deployed.start()
    assert await deployed.ends() == "Completed"
    assert set(deployed.answers) == {"{'n': 1}"}


async def _other(deployed: Deployed, than: RunView) -> RunView | None:
    found = await deployed.submission.runs.waiting_for([deployed.key])
    return next((run for run in found if run.run_id != than.run_id), None)
