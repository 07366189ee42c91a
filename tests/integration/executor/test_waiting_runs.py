"""Runs that wait in their process when that process ends: none is lost, and none goes on without an answer."""

import asyncio
import os
import signal
from typing import Any
from uuid import UUID

import psutil
import pytest
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun

from services.executor.finalizing import open_pauses
from services.prefect_api.waiting import WaitingRuns
from tests.integration.executor.conftest import Bench
from tests.support.waiting import eventually

NOTE = """
import os
from prefect import flow
from prefect.flow_runs import pause_flow_run
from sluice import wait_for_signal

def note(out, *words):
    with open(out, "a") as file:
        print(*words, file=file)

"""
PLAIN = (
    NOTE
    + """
@flow
def main(out: str):
    note(out, "begun", os.getpid())
    pause_flow_run(timeout=3600)
    note(out, "on")
"""
)
SIGNAL = PLAIN.replace("pause_flow_run(timeout=3600)", "assert wait_for_signal('gate') == {'n': 1}")
SUBFLOW = (
    NOTE
    + """
@flow(name="{child}")
def gate():
    pause_flow_run(timeout=3600)

@flow
def main(out: str):
    note(out, "begun", os.getpid())
    gate()
    note(out, "on")
"""
)

RESUMED = """
from prefect import flow, pause_flow_run
from pydantic import BaseModel

class Answer(BaseModel):
    n: int

@flow
{define} main():
    {wait}pause_flow_run(timeout=3600, poll_interval=1800)
    answer = {wait}pause_flow_run(wait_for_input=Answer, timeout=3600, poll_interval=1800)
    assert answer.n == 7
"""


def lines(bench: Bench) -> list[str]:
    path = bench.folder / "out"
    return path.read_text().splitlines() if path.exists() else []


async def begin(bench: Bench, source: str, **options: Any) -> tuple[str, int]:
    """A run that has begun, and its process."""
    deployment = await bench.deploy(source, **options)
    run_id = await bench.create(deployment, parameters={"out": str(bench.folder / "out")})
    await eventually(lambda: asyncio.sleep(0, lines(bench)), what="the flow to begin")
    return run_id, int(lines(bench)[-1].split()[1])


async def answer(bench: Bench, run_id: str) -> None:
    runs = WaitingRuns(bench.api)
    await runs.resume(await runs.read(run_id), {"n": 1})


async def paused_again(bench: Bench, run_id: str, before: str) -> None:
    async def again() -> bool:
        run = await bench.read(run_id)
        return run["state_type"] == "PAUSED" and run["state_id"] != before

    await eventually(again, what="the run to come to its pause again")


async def kept(bench: Bench, run_id: str) -> None:
    """Return once the run waits without a process; the last slots may see to that after their executor has stopped."""

    async def waits() -> bool:
        state = (await bench.read(run_id))["state"]
        return state["name"] == "Paused" and state["state_details"]["pause_reschedule"]

    await eventually(waits, what="the run to wait without a process")


def kill_slot(executor: Any) -> None:
    (slot,) = (slot for slot in executor._pool.slots.by_pid.values() if slot.run)  # another one is there while it waits
    os.kill(slot.process.pid, signal.SIGKILL)


@pytest.mark.parametrize(("define", "wait"), [("def", ""), ("async def", "await ")], ids=["sync", "async"])
async def test_a_plain_pause_goes_on_when_it_is_resumed_however_seldom_it_looks(bench: Bench, define: str, wait: str):
    await bench.start(slots=1)
    run_id = await bench.create(await bench.deploy(RESUMED.format(define=define, wait=wait)))

    async def resume(given: dict[str, int] | None, *, behind: str = "") -> str:
        async def resumed() -> str | None:
            run = await bench.read(run_id)
            if run["state_type"] != "PAUSED" or run["state_id"] == behind:
                return None
            said = await bench.api.request("POST", f"/flow_runs/{run_id}/resume", json={"run_input": given})
            return str(run["state_id"]) if said["status"] == "ACCEPT" else None  # else its form is not there yet

        return await eventually(resumed, what="the run to be resumed")

    await resume({"n": 7}, behind=await resume(None))
    run = await bench.reach(run_id)
    assert run["state_type"] == "COMPLETED", run["state"]["message"]


@pytest.mark.parametrize("source", [PLAIN, SIGNAL], ids=["pause", "signal"])
async def test_a_paused_run_whose_process_is_killed_is_crashed_with_the_cause(bench: Bench, source: str):
    await bench.start(slots=1)
    run_id, pid = await begin(bench, source)
    await bench.reach(run_id, "PAUSED")
    os.kill(pid, signal.SIGKILL)
    run = await bench.reach(run_id)
    assert (run["state_type"], "SIGKILL" in run["state"]["message"]) == ("CRASHED", True)


async def test_a_paused_run_over_its_time_is_stopped_and_says_so(bench: Bench):
    await bench.start(slots=1, grace_seconds=1.0)
    run_id, _ = await begin(bench, SIGNAL, job_variables={"sluice_time_seconds": 3})
    assert (await bench.reach(run_id))["state_name"] == "TimedOut"


async def test_a_flow_with_retries_that_is_over_its_time_is_tried_again(bench: Bench):
    await bench.start(slots=1, grace_seconds=1.0)
    source = PLAIN.replace("@flow", "@flow(retries=1)").replace("pause_flow_run(timeout=3600)", "time.sleep(60)")
    source = "import time\n" + source
    run_id, _ = await begin(bench, source, job_variables={"sluice_time_seconds": 3})
    assert (await bench.reach(run_id))["state_name"] == "TimedOut"
    assert len(lines(bench)) == 2
    assert "AwaitingRetry" in await bench.states(run_id)


@pytest.mark.parametrize("source", [PLAIN, SIGNAL], ids=["pause", "signal"])
async def test_a_paused_run_whose_slot_dies_comes_to_its_pause_again_where_it_is_restarted(bench: Bench, source: str):
    executor = await bench.start(slots=1)
    run_id, _ = await begin(bench, source, job_variables={"sluice_on_lost": "restart"})
    first = (await bench.reach(run_id, "PAUSED"))["state_id"]
    kill_slot(executor)
    await paused_again(bench, run_id, first)
    assert "on" not in lines(bench)
    await answer(bench, run_id)
    assert (await bench.reach(run_id))["state_type"] == "COMPLETED"
    assert [line.split()[0] for line in lines(bench)] == ["begun", "begun", "on"]


@pytest.mark.parametrize("on_lost", ["crash", "restart"])
async def test_a_run_that_is_said_to_run_before_a_process_has_it_is_not_left_without_one(bench: Bench, on_lost: str):
    await bench.start(slots=1)
    run_id, _ = await begin(bench, SIGNAL, job_variables={"sluice_on_lost": on_lost})
    first = (await bench.reach(run_id, "PAUSED"))["state_id"]
    for kind in ("SCHEDULED", "RUNNING"):
        body = {"state": {"type": kind}, "force": True}
        await bench.api.request("POST", f"/flow_runs/{run_id}/set_state", json=body)

    async def seen_to() -> bool:
        run = await bench.read(run_id)
        waits = run["state_type"] == "PAUSED" and run["state_id"] != first  # it may have been claimed in between
        return waits or (on_lost == "crash" and run["state_type"] == "CRASHED")

    await eventually(seen_to, what="the run to be seen to")


async def child_of(bench: Bench, name: str) -> dict[str, Any]:
    (run,) = await bench.api.request("POST", "/flow_runs/filter", json={"flows": {"name": {"any_": [name]}}})
    return run


async def child_is(bench: Bench, name: str, *types: str) -> dict[str, Any]:
    async def there() -> dict[str, Any] | None:
        found = await bench.api.request("POST", "/flow_runs/filter", json={"flows": {"name": {"any_": [name]}}})
        return found[0] if found and found[0]["state_type"] in types else None

    return await eventually(there, what=f"the subflow to be {types}")


async def test_the_subflow_of_a_run_that_crashes_does_not_wait_for_ever(bench: Bench):
    await bench.start(slots=1)
    child = f"gate-{bench.name}"
    run_id, pid = await begin(bench, SUBFLOW.replace("{child}", child))
    await child_is(bench, child, "PAUSED")
    os.kill(pid, signal.SIGKILL)
    assert (await bench.reach(run_id))["state_type"] == "CRASHED"
    assert "parent run" in (await child_is(bench, child, "CRASHED"))["state"]["message"]


@pytest.mark.parametrize("wait", ["pause_flow_run(timeout=3600)", "wait_for_signal('gate')"], ids=["pause", "signal"])
async def test_the_subflow_of_a_run_that_is_handed_back_waits_again(bench: Bench, wait: str):
    await bench.start(slots=1, stop_seconds=0.1)
    child = f"gate-{bench.name}"
    source = SUBFLOW.replace("{child}", child).replace("pause_flow_run(timeout=3600)", wait)
    run_id, _ = await begin(bench, source)
    first = (await child_is(bench, child, "PAUSED"))["state_id"]
    await bench.stop()
    assert (await bench.reach(run_id, "SCHEDULED"))["state_name"] == "AwaitingRetry"
    await bench.start(slots=1)
    await eventually(lambda: asyncio.sleep(0, len(lines(bench)) == 2), what="the flow to begin again")
    again = await child_of(bench, child)
    await paused_again(bench, again["id"], first)
    assert "on" not in lines(bench)
    await answer(bench, again["id"])
    assert (await bench.reach(run_id))["state_type"] == "COMPLETED"


@pytest.mark.parametrize("source", [PLAIN, SIGNAL], ids=["pause", "signal"])
async def test_a_paused_run_waits_on_while_its_executor_is_away_and_goes_on_when_answered(bench: Bench, source: str):
    await bench.start(slots=1, stop_seconds=600)  # it waits, and has nothing to finish
    run_id, pid = await begin(bench, source)
    await bench.reach(run_id, "PAUSED")
    await bench.stop()
    await kept(bench, run_id)
    assert not psutil.pid_exists(pid)
    executor = await bench.start(slots=1)
    assert executor.status()["running"] == 0
    await answer(bench, run_id)
    assert (await bench.reach(run_id))["state_type"] == "COMPLETED"
    assert [line.split()[0] for line in lines(bench)] == ["begun", "begun", "on"]


async def test_a_paused_run_that_is_answered_while_no_executor_is_there_goes_on_with_the_next_one(bench: Bench):
    await bench.start(slots=1, stop_seconds=0.1)
    run_id, _ = await begin(bench, SIGNAL)
    await bench.reach(run_id, "PAUSED")
    await bench.stop()
    await kept(bench, run_id)
    await answer(bench, run_id)
    assert (await bench.read(run_id))["state_name"] == "Resuming"
    await bench.start(slots=1)
    assert (await bench.reach(run_id))["state_type"] == "COMPLETED"


async def paused_run(bench: Bench, client: PrefectClient) -> FlowRun:
    """A paused run of which no process is left, as its settlement has read it."""
    run_id = await bench.create(await bench.deploy(PLAIN))
    for state in (
        {"type": "PENDING"},
        {"type": "RUNNING"},
        {"type": "PAUSED", "name": "Paused", "message": "asks", "state_details": {"pause_key": "1"}},
    ):
        await bench.api.request("POST", f"/flow_runs/{run_id}/set_state", json={"state": state})
    return await client.read_flow_run(UUID(run_id))


@pytest.mark.parametrize("crashed", [False, True], ids=["at once", "by a second settlement"])
@pytest.mark.parametrize(
    ("between", "after"),
    [({"type": "RUNNING"}, "Resuming"), ({"type": "CANCELLED", "name": "Cancelled", "message": "no"}, "Cancelled")],
    ids=["resumed", "cancelled"],
)
async def test_what_happens_to_a_run_just_as_it_is_kept_waiting_is_not_lost(
    bench: Bench, monkeypatch, between: dict[str, Any], after: str, *, crashed: bool
):
    async with get_client() as client:
        seen = await paused_run(bench, client)
        await bench.api.request("POST", f"/flow_runs/{seen.id}/set_state", json={"state": between})
        with monkeypatch.context() as patch:
            if crashed:
                patch.setattr(open_pauses, "heal_kept", lambda *_: asyncio.sleep(0))
            await open_pauses.keep_waiting(client, seen)
        await open_pauses.heal_kept(client, seen)
    run = await bench.read(str(seen.id))
    assert run["state_name"] == after
    assert (run["state"]["message"] or "") == between.get("message", "")


async def test_a_run_that_nobody_touched_is_kept_waiting_under_its_key_and_message(bench: Bench):
    async with get_client() as client:
        seen = await paused_run(bench, client)
        for _ in range(2):  # as two settlements do, each of which has read the same state
            await open_pauses.keep_waiting(client, seen)
        await open_pauses.heal_kept(client, seen)
    state = (await bench.read(str(seen.id)))["state"]
    details = state["state_details"]
    assert (state["name"], state["message"]) == ("Paused", "asks")
    assert (details["pause_key"], details["pause_reschedule"]) == ("1", True)
