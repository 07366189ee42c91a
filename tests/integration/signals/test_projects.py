"""Two projects on one Prefect server."""

from __future__ import annotations

from services.prefect_api.waiting import WaitingRuns
from tests.integration.signals.conftest import Desk, new_key


async def test_a_key_is_for_the_runs_of_its_own_project(resumer: Desk) -> None:
    key = new_key()
    foreign = await resumer.park(key, tags=["sluice-project:others"])
    signal_id = await resumer.send(key=key, input={})
    await resumer.outcome(signal_id, of=["buffered"], within=60)
    own = await resumer.park(key)
    applied = await resumer.outcome(signal_id, within=60)
    assert applied.status == "applied"
    states = {run.run_id: run.waiting for run in await resumer.runs.read_many([own, foreign])}
    assert states == {own: False, foreign: True}


async def test_a_run_of_another_project_is_no_wait_of_ours(submission: Desk) -> None:
    key = new_key()
    run_id = await submission.park(key, tags=["sluice-project:others"])
    for project, keys in (("others", (key,)), ("mine", ()), (None, ())):
        runs = WaitingRuns(submission.api, project=project)
        assert (await runs.read(run_id)).keys == keys
        assert [run.run_id for run in await runs.waiting_for([key])] == ([run_id] if keys else [])
