"""`sluice deploy` on a real Prefect server: what it creates, changes, removes, and what it leaves alone."""

from __future__ import annotations

import pytest

from events.errors import ConfigError
from services.prefect_api.client import PrefectApi
from services.store.runs.registered_files import KEY
from tests.integration.deployments.conftest import Project


async def test_a_plan_shows_what_a_deploy_then_does(project: Project):
    project.write("kept")
    project.write("tuned", {"cron": "0 3 * * *"})
    assert await project.deploy(plan_only=True) == {
        "kept": ("create", f"flows/kept_{project.mark}.py:main"),
        "tuned": ("create", f"flows/tuned_{project.mark}.py:main"),
    }
    assert await project.read("kept") is None
    await project.deploy()
    assert {name: action for name, (action, _) in (await project.deploy()).items()} == {
        "kept": "unchanged",
        "tuned": "unchanged",
    }
    project.write("tuned", {"cron": "0 4 * * *", "concurrency_limit": 2, "parameters": {"size": 3}})
    action, details = (await project.deploy(plan_only=True))["tuned"]
    assert action == "change"
    assert "schedules: 0 3 * * * UTC → 0 4 * * * UTC" in details
    assert "concurrency_limit: none → 2" in details
    assert "parameters: none → {'size': 3}" in details
    tuned = await project.read("tuned")
    assert tuned
    assert [one["schedule"]["cron"] for one in tuned["schedules"]] == ["0 3 * * *"]
    await project.deploy()
    tuned = await project.read("tuned")
    assert tuned
    assert [one["schedule"]["cron"] for one in tuned["schedules"]] == ["0 4 * * *"]
    assert (await project.deploy())["tuned"] == ("unchanged", "")


async def test_a_deployment_whose_flow_is_gone_is_removed(project: Project):
    project.write("kept", area="sales")
    project.write("gone", {"cron": "0 3 * * *"})
    await project.deploy()
    project.remove("gone")
    action, details = (await project.deploy(plan_only=True))["gone"]
    assert (action, details) == ("remove", f"flows/gone_{project.mark}.py:main is gone")
    assert await project.read("gone")
    await project.deploy()
    assert await project.read("gone") is None
    kept = await project.read("kept")
    assert kept
    assert kept["entrypoint"] == f"flows/sales/kept_{project.mark}.py:main"
    assert set(await project.deploy()) == {"kept"}


async def make_pool(api: PrefectApi, name: str, kind: str) -> None:
    """As `prefect work-pool create --type KIND` does it."""
    known = await api.request("GET", "/collections/views/aggregate-worker-metadata")
    (template,) = (workers[kind] for workers in known.values() if kind in workers)
    job = template["default_base_job_configuration"]
    await api.request("POST", "/work_pools/", json={"name": name, "type": kind, "base_job_template": job})


async def test_a_flow_is_given_to_a_work_pool_and_taken_back(project: Project):
    pool = project.name("docker")
    step = {"prefect.deployments.steps.set_working_directory": {"directory": "/opt/app"}}
    given = {"work_pool": pool, "pull": [step], "job_variables": {"image": "registry.example/app:7", "env": {"A": "b"}}}
    project.write("boxed", given)
    project.write("kept")
    action, details = (await project.deploy())["boxed"]
    assert action == "leave"
    assert f"boxed_{project.mark}.py:6: DEPLOYMENT.work_pool: Prefect has no work pool {pool!r}" in details
    assert await project.read("boxed") is None
    assert await project.read("kept")
    await make_pool(project.api, pool, "docker")
    assert (await project.deploy())["boxed"][0] == "create"
    boxed = await project.read("boxed")
    assert boxed
    assert (boxed["work_pool_name"], boxed["pull_steps"]) == (pool, [step])
    assert boxed["job_variables"] == given["job_variables"]
    assert await project.redis.hexists(KEY, boxed["id"]) is False
    assert (await project.deploy())["boxed"] == ("unchanged", "")

    project.write("boxed", {**given, "job_variables": {"imag": "x", "volumes": 3}})
    with pytest.raises(ConfigError) as refused:
        await project.deploy()
    unknown, unfit = refused.value.problems
    assert f"DEPLOYMENT.job_variables.imag: the work pool {pool!r} (of the type docker) has no job variable" in unknown
    assert "did you mean `image`?" in unknown
    assert "DEPLOYMENT.job_variables.volumes: 3 does not fit in the work pool" in unfit

    project.write("boxed")
    action, details = (await project.deploy())["boxed"]
    assert action == "change"
    assert f"work_pool_name: {pool} → none" in details
    boxed = await project.read("boxed")
    assert boxed
    assert (boxed["work_pool_name"], boxed["pull_steps"]) == (None, None)
    assert await project.redis.hexists(KEY, boxed["id"])


async def test_one_whose_runs_are_not_over_is_paused_until_they_are(project: Project):
    project.write("kept")
    project.write("gone", {"cron": "0 3 * * *"})
    await project.deploy()
    run_id = await project.run("gone", {"type": "PAUSED", "name": "Suspended"})
    project.remove("gone")
    action, details = (await project.deploy())["gone"]
    assert action == "pause"
    assert "not over (1 Suspended)" in details
    deployment = await project.read("gone")
    assert deployment
    assert deployment["paused"] is True
    assert (await project.api.request("GET", f"/flow_runs/{run_id}"))["state_type"] == "PAUSED"
    action, details = (await project.deploy())["gone"]
    assert action == "leave"
    assert "paused already" in details
    await project.set_state(run_id, {"type": "CANCELLED"})
    assert (await project.deploy())["gone"][0] == "remove"
    assert await project.read("gone") is None


async def test_a_flow_that_comes_back_is_unpaused(project: Project):
    project.write("kept")
    project.write("back")
    await project.deploy()
    await project.run("back", {"type": "RUNNING"})
    project.remove("back")
    assert (await project.deploy())["back"][0] == "pause"
    project.write("back")
    action, details = (await project.deploy())["back"]
    assert (action, details) == ("change", "paused: yes → no")
    deployment = await project.read("back")
    assert deployment
    assert deployment["paused"] is False


async def test_a_run_that_waits_for_its_turn_keeps_its_deployment(project: Project):
    project.write("kept")
    project.write("busy")
    await project.deploy()
    await project.run("busy", {"type": "SCHEDULED", "name": "AwaitingRetry"})
    project.remove("busy")
    assert (await project.deploy())["busy"][0] == "pause"


async def test_an_empty_folder_removes_nothing(project: Project):
    project.write("kept")
    await project.deploy()
    project.remove("kept")
    action, details = (await project.deploy())["kept"]
    assert action == "leave"
    assert "has no flow at all, as if something were not mounted" in details


async def test_a_flow_whose_library_is_missing_stays_as_it_was_registered(project: Project):
    project.write("one")
    project.write("two")
    await project.deploy()
    file = project.root / "flows" / f"one_{project.mark}.py"
    file.write_text("import not_there_at_all\n" + file.read_text(encoding="utf-8"), encoding="utf-8")
    actions = await project.deploy()
    assert actions["one"][0] == "leave"
    assert "cannot be imported here" in actions["one"][1]
    assert actions["two"][0] == "unchanged"
    assert await project.read("one")
