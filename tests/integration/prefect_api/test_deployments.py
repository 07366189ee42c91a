"""Deployments as they are registered, read and served, on a real Prefect server."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from events.errors import NotFound, Refused
from services.prefect_api.client import PrefectApi
from services.prefect_api.deployments import (
    due,
    every_body,
    names_of,
    read,
    read_by_name,
    register,
    remove,
    without_work_pool,
    work_pools,
)
from services.prefect_api.run_calls import start_run
from tests.integration.delivery.world import set_state

BODY = {
    "name": "de fault",
    "path": "/p",
    "entrypoint": "a.py:f",
    "tags": ["t"],
    "job_variables": {"sluice_memory_mb": 5},
}


async def test_a_deployment_is_read_as_it_was_registered(api: PrefectApi) -> None:
    flow = f"flow ü {uuid.uuid4().hex[:8]}"
    deployment_id = await register(api, flow=flow, body=BODY)
    found = await read(api, deployment_id)
    assert found == await read_by_name(api, f"{flow}/de fault")
    assert (found.name, found.path, found.entrypoint) == (f"{flow}/de fault", "/p", "a.py:f")
    assert (found.tags, found.job_variables, found.work_pool, found.remote) == (
        ("t",), {"sluice_memory_mb": 5}, None, False
    )  # fmt: skip
    assert await register(api, flow=flow, body={**BODY, "entrypoint": "b.py:f"}) == deployment_id
    assert (await read(api, deployment_id)).entrypoint == "b.py:f"


async def test_code_that_has_to_be_fetched_is_not_on_this_machine(api: PrefectApi) -> None:
    steps = [{"prefect.deployments.steps.git_clone": {"repository": "https://example.invalid/r.git"}}]
    deployment_id = await register(api, flow=f"flow-{uuid.uuid4().hex[:8]}", body={**BODY, "pull_steps": steps})
    assert (await read(api, deployment_id)).remote


async def test_a_deployment_leaves_its_work_pool_when_it_is_registered_without_one(api: PrefectApi) -> None:
    flow, pool = f"flow-{uuid.uuid4().hex[:8]}", f"pool-{uuid.uuid4().hex[:8]}"
    await api.request("POST", "/work_pools/", json={"name": pool, "type": "process"})
    assert pool in await work_pools(api)
    deployment_id = await register(api, flow=flow, body={**BODY, "work_pool_name": pool})
    assert (await read(api, deployment_id)).work_pool == pool
    assert f"{flow}/de fault" not in {one.name for one in await without_work_pool(api)}
    await register(api, flow=flow, body=BODY)
    assert (await read(api, deployment_id)).work_pool is None
    assert f"{flow}/de fault" in {one.name for one in await without_work_pool(api)}


async def test_what_prefect_does_not_take_is_refused(api: PrefectApi) -> None:
    with pytest.raises(Refused):
        await register(api, flow="flow", body={"entrypoint": "a.py:f"})


async def test_a_removed_deployment_is_gone_and_may_be_removed_again(api: PrefectApi, name: str) -> None:
    found = await read_by_name(api, name)
    for _ in range(2):
        await remove(api, found.id)
    with pytest.raises(NotFound):
        await read(api, found.id)
    with pytest.raises(NotFound):
        await read_by_name(api, name)
    assert name not in await every_body(api)


async def test_names_are_those_of_what_still_exists(api: PrefectApi, name: str) -> None:
    found = await read_by_name(api, name)
    assert await names_of(api, "deployments", [found.id, None, str(uuid.uuid4())]) == {found.id: "default"}
    assert await names_of(api, "flows", [found.flow_id]) == {found.flow_id: name.partition("/")[0]}
    assert await names_of(api, "flows", []) == {}


async def test_due_runs_are_those_before_a_time_soonest_first(api: PrefectApi, name: str) -> None:
    found = await read_by_name(api, name)
    now = (await start_run(api, name, {"amount": 1}))["id"]
    later = (await start_run(api, name, {"amount": 2}))["id"]
    at = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    state = {"type": "SCHEDULED", "state_details": {"scheduled_time": at}}
    await api.request("POST", f"/flow_runs/{later}/set_state", json={"state": state, "force": True})
    running = (await start_run(api, name, {"amount": 3}))["id"]
    await set_state(api, running, "RUNNING")

    async def ids(before: timedelta) -> list[str]:
        return [run.run_id for run in await due(api, [found.id], before=datetime.now(UTC) + before)]

    assert await ids(timedelta(minutes=1)) == [now]
    assert await ids(timedelta(minutes=9)) == [now, later]
    assert await due(api, [], before=datetime.now(UTC)) == []
    assert (await api.request("GET", f"/deployments/{found.id}"))["status"] == "READY", "it is served"


async def test_a_run_between_two_tries_of_its_own_process_is_not_due(api: PrefectApi, name: str) -> None:
    found = await read_by_name(api, name)
    run_id = (await start_run(api, name, {"amount": 1}))["id"]
    await set_state(api, run_id, "RUNNING")
    await api.request("PATCH", f"/flow_runs/{run_id}", json={"empirical_policy": {"retry_type": "in_process"}})
    await set_state(api, run_id, "SCHEDULED", name="AwaitingRetry")
    assert await due(api, [found.id], before=datetime.now(UTC) + timedelta(minutes=1)) == []
