"""`paused-loop`: what was done before the pause is not done again after it."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow

from flows.paused_loop import paused_loop
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.usefixtures("_collected"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
WaitingRun = Callable[[str], uuid.UUID]
Logs = Callable[[Any], list[str]]


def processed(lines: list[str]) -> list[str]:
    return [line.removeprefix("processing ") for line in lines if line.startswith("processing ")]


def finished_tasks(prefect: SyncPrefectClient, run_id: uuid.UUID) -> list[Any]:
    """Once there are as many as before the pause; Prefect stores them a moment after they have ended."""
    body = {"flow_runs": {"id": {"any_": [str(run_id)]}}}
    found: list[Any] = prefect.request("POST", "/task_runs/filter", json=body).json()
    return found if len(found) >= 3 else []


def test_the_loop_pauses_after_three_items_and_goes_on_with_the_fourth(
    prefect: SyncPrefectClient, waiting_run: WaitingRun, logs: Logs
) -> None:
    with ThreadPoolExecutor(1) as pool:
        ending = pool.submit(paused_loop, key="loop-a", timeout_seconds=600, return_state=True)
        waiting = waiting_run("loop-a")
        done = wait_until(lambda: finished_tasks(prefect, waiting), what="Prefect to have stored the first tasks")
        assert len(done) == 3
        prefect.resume_flow_run(waiting, run_input={"go_on": True})
        state = ending.result()
    assert state.message == "10 of 10 items are done"
    assert processed(logs(state)) == [f"item {number}" for number in range(1, 11)]


def test_a_suspended_loop_starts_again_without_repeating_what_it_finished(
    prefect: SyncPrefectClient, logs: Logs
) -> None:
    flow_id = prefect.create_flow(paused_loop)
    deployment = prefect.create_deployment(flow_id, "test", entrypoint="flows/paused_loop.py:paused_loop")
    parameters = {"items": ["a", "b", "c", "d"], "pause_after": 2, "key": "loop-b", "suspend": True}
    created = prefect.create_flow_run_from_deployment(deployment, parameters=parameters)

    with pytest.raises(Pause):
        run_flow(paused_loop, flow_run=created, parameters=parameters, return_type="state")
    suspended = prefect.read_flow_run(created.id)
    assert suspended.state is not None
    assert (suspended.state.name, suspended.tags) == ("Suspended", ["awaits:loop-b"])

    prefect.resume_flow_run(created.id, run_input={"go_on": True})
    run_flow(paused_loop, flow_run=prefect.read_flow_run(created.id), parameters=parameters, return_type="state")
    state = prefect.read_flow_run(created.id).state
    assert state is not None
    assert state.message == "4 of 4 items are done"
    state.state_details.flow_run_id = created.id
    assert processed(logs(state)) == ["a", "b", "c", "d"]


def test_it_pauses_after_three_items_where_it_is_run_as_a_program(
    prefect: SyncPrefectClient, prefect_url: str, checkout: Path
) -> None:
    env = {**os.environ, "PREFECT_API_URL": prefect_url}
    program = subprocess.Popen([sys.executable, "flows/paused_loop.py"], cwd=checkout, env=env)
    try:
        where = {
            "flow_runs": {"tags": {"all_": ["awaits:paused-loop"]}, "state": {"type": {"any_": ["PAUSED"]}}},
            "flows": {"name": {"any_": ["paused-loop"]}},
        }
        (run,) = wait_until(
            lambda: prefect.request("POST", "/flow_runs/filter", json=where).json(),
            what="the loop pauses",
            within_seconds=120,
        )
        assert run["name"] == "paused loop paused-loop"
        done = wait_until(lambda: finished_tasks(prefect, uuid.UUID(run["id"])), what="three items are done")
        assert len(done) == 3
        prefect.resume_flow_run(uuid.UUID(run["id"]), run_input={"go_on": True})
        assert program.wait(120) == 0
    finally:
        program.kill()
        program.wait()


def test_a_loop_whose_pause_lies_beyond_its_end_does_not_wait(prefect_url: str) -> None:
    assert len(paused_loop(items=["a", "b"], pause_after=2)) == 2
