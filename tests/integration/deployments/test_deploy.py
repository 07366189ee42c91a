"""`sluice deploy` on a real Prefect server: what it creates, changes, removes, and what it leaves alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from config.settings import CHECKOUT, RedisSettings
from events.errors import ConfigError, NotFound
from services.deployments.declared import Declarations, read_declarations
from services.deployments.deploy import carry_out, plan_deployments
from services.prefect_api.client import PrefectApi, connect
from services.store.connection import AsyncRedis
from services.store.connection import connect as connect_redis
from services.store.runs.registered_files import KEY
from tests.support.warm import run_module

FLOW = "from prefect import flow\n\n@flow(name={name!r})\ndef main(size: int = 1): ...\n"


class Project:
    """A folder with flows, and the installation that registers them."""

    def __init__(self, api: PrefectApi, redis: AsyncRedis, root: Path) -> None:
        self.api = api
        self.redis = redis
        self.root = root
        self.mark = f"t{uuid.uuid4().hex[:8]}"
        (root / "flows").mkdir(parents=True)

    def name(self, flow: str) -> str:
        return f"{self.mark}-{flow}"

    def write(self, flow: str, deployment: dict[str, Any] | None = None, *, area: str = "") -> None:
        text = FLOW.format(name=self.name(flow)) + (f"\nDEPLOYMENT = {deployment!r}\n" if deployment else "")
        path = self.root / "flows" / area / f"{flow}_{self.mark}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def remove(self, flow: str) -> None:
        (self.root / "flows" / f"{flow}_{self.mark}.py").unlink()

    async def deploy(self, *, plan_only: bool = False) -> dict[str, tuple[str, str]]:
        """The action and details for each of this project's flows, by the flow's short name."""
        declarations = read_declarations(self.root, environment="development")
        plan = await plan_deployments(self.api, self.redis, declarations)
        if not plan_only:
            await carry_out(self.api, self.redis, plan)
        return {
            step.deployment.removeprefix(f"{self.mark}-").removesuffix("/default"): (
                step.action,
                "; ".join(step.details),
            )
            for step in plan.steps
        }

    async def read(self, flow: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = await self.api.request("GET", f"/deployments/name/{self.name(flow)}/default")
        except NotFound:
            return None
        return found

    async def run(self, flow: str, state: dict[str, Any]) -> str:
        deployment = await self.read(flow)
        assert deployment
        path = f"/deployments/{deployment['id']}/create_flow_run"
        run = await self.api.request("POST", path, json={"state": {"type": "SCHEDULED"}})
        await self.set_state(run["id"], state)
        return str(run["id"])

    async def set_state(self, run_id: str, state: dict[str, Any]) -> None:
        await self.api.request("POST", f"/flow_runs/{run_id}/set_state", json={"state": state, "force": True})


@pytest_asyncio.fixture
async def api(prefect_url: str) -> AsyncIterator[PrefectApi]:
    async with connect(prefect_url) as found:
        yield found


@pytest.fixture
def project(api: PrefectApi, redis: AsyncRedis, tmp_path: Path) -> Project:
    return Project(api, redis, tmp_path / "project")


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


async def test_what_others_registered_is_left_alone(project: Project, api: PrefectApi, valkey_url: str, tmp_path: Path):
    other_redis = connect_redis(valkey_url.removesuffix("/0") + "/1", RedisSettings())
    try:
        other = Project(api, other_redis, tmp_path / "other")
        other.write("theirs")
        await other.deploy()
        flow = (await api.request("POST", "/flows/", json={"name": project.name("foreign")}))["id"]
        foreign = {"name": "default", "flow_id": flow, "tags": ["sluice"], "entrypoint": "flows/x.py:main"}
        await api.request("POST", "/deployments/", json={**foreign, "path": str(project.root)})
        project.write("own")
        assert set(await project.deploy()) == {"own"}
        assert await other.read("theirs")
        assert await project.read("foreign")
    finally:
        await other_redis.flushdb()
        await other_redis.aclose()


async def test_a_flow_that_another_project_registered_too_is_said_to_be_taken_over(
    project: Project, api: PrefectApi, valkey_url: str, tmp_path: Path
):
    other_redis = connect_redis(valkey_url.removesuffix("/0") + "/1", RedisSettings())
    try:
        other = Project(api, other_redis, tmp_path / "other")
        other.mark = project.mark
        other.write("both")
        await other.deploy()
        project.write("both")
        action, details = (await project.deploy())["both"]
        assert action == "change"
        assert f"taken over from another project ({other.root} on " in details
        other.remove("both")
        assert await other.deploy() == {}
        assert await project.read("both")
    finally:
        await other_redis.flushdb()
        await other_redis.aclose()


async def test_another_checkout_of_the_project_keeps_the_flows_that_only_it_has(project: Project, tmp_path: Path):
    project.write("old")
    project.write("new")
    await project.deploy()
    older = Project(project.api, project.redis, tmp_path / "older")
    older.mark = project.mark
    older.write("old")
    found = await older.deploy()
    assert found["old"][0] == "change"
    action, details = found["new"]
    assert action == "leave"
    assert f"{project.root} still has flows/new_{project.mark}.py:main" in details
    assert await project.read("new")


async def test_a_renamed_folder_takes_its_deployments_along(project: Project, tmp_path: Path):
    project.write("kept")
    project.write("gone")
    await project.deploy()
    project.remove("gone")
    moved = Project(project.api, project.redis, tmp_path / "moved")
    moved.mark = project.mark
    shutil.rmtree(moved.root)
    project.root.rename(moved.root)
    found = await moved.deploy()
    assert found["kept"][0] == "change"
    assert found["gone"][0] == "pause"
    assert f"{project.root} is not there" in found["gone"][1]
    deployment = await moved.read("kept")
    assert deployment
    assert deployment["path"] == str(moved.root)


async def test_an_empty_folder_removes_nothing(project: Project):
    project.write("kept")
    await project.deploy()
    project.remove("kept")
    action, details = (await project.deploy())["kept"]
    assert action == "leave"
    assert "has no flow at all, as if something were not mounted" in details


async def test_another_checkout_that_no_longer_has_the_flow_keeps_nothing(project: Project, tmp_path: Path):
    project.write("old")
    project.write("gone")
    await project.deploy()
    project.remove("gone")
    other = Project(project.api, project.redis, tmp_path / "other")
    other.mark = project.mark
    other.write("old")
    assert (await other.deploy())["gone"][0] == "remove"


async def test_a_redis_that_holds_another_project_is_refused(project: Project, valkey_url: str):
    def named(name: str | None) -> Declarations:
        return read_declarations(project.root, environment="development", project=name)

    project.write("one")
    plan = await plan_deployments(project.api, project.redis, named("orders"))
    await carry_out(project.api, project.redis, plan)
    found = await project.read("one")
    assert found is not None
    assert found["tags"] == ["sluice", "sluice-project:orders"]
    for other in ("invoices", None):
        with pytest.raises(ConfigError, match="this Redis holds the project 'orders'"):
            await plan_deployments(project.api, project.redis, named(other))
    await plan_deployments(project.api, project.redis, named("orders"))
    (project.root / "sluice.yaml").write_text("name: invoices\n", encoding="utf-8")
    env = {"SLUICE_REDIS_URL": valkey_url, "SLUICE_CONFIG": str(project.root / "sluice.yaml")}
    role = command("run", "listeners", env={**env, "PREFECT_API_URL": project.api.url})
    assert role.returncode == 2, role.stderr
    assert "this Redis holds the project 'orders'" in role.stderr
    status = command("status", "--json", env={**env, "PREFECT_API_URL": project.api.url})
    assert json.loads(status.stdout)["project"] == "orders"


async def test_a_redis_that_holds_a_project_without_a_name_is_refused_while_that_stands_there(
    project: Project, valkey_url: str, tmp_path: Path
):
    other = Project(project.api, project.redis, tmp_path / "other")
    other.mark = project.mark
    for one in (project, other):
        one.write("one")
        (one.root / "sluice.yaml").write_text("{}\n", encoding="utf-8")
    await project.deploy()
    for name in (None, "invoices"):
        declared = read_declarations(other.root, environment="development", project=name)
        with pytest.raises(ConfigError, match=f"holds the project in {project.root}, which has no name"):
            await plan_deployments(project.api, project.redis, declared)
    env = {"SLUICE_REDIS_URL": valkey_url, "PREFECT_API_URL": project.api.url}
    role = command("run", "listeners", env={**env, "SLUICE_CONFIG": str(other.root / "sluice.yaml")})
    assert role.returncode == 2, role.stderr
    assert "which has no name" in role.stderr
    # It gets a name where it stands, and later the same project without one is another one.
    named = read_declarations(project.root, environment="development", project="orders")
    await carry_out(project.api, project.redis, await plan_deployments(project.api, project.redis, named))
    with pytest.raises(ConfigError, match="this Redis holds the project 'orders'"):
        await project.deploy()


async def test_a_project_without_a_name_may_move(project: Project, tmp_path: Path):
    project.write("one")
    (project.root / "sluice.yaml").write_text("{}\n", encoding="utf-8")
    await project.deploy()
    project.root = project.root.rename(tmp_path / "moved")
    assert (await project.deploy())["one"][0] == "change"


async def test_projects_with_different_names_do_not_take_over_each_others_flows(
    project: Project, api: PrefectApi, valkey_url: str, tmp_path: Path
):
    other_redis = connect_redis(valkey_url.removesuffix("/0") + "/1", RedisSettings())

    def named(one: Project, name: str | None) -> Declarations:
        return read_declarations(one.root, environment="development", project=name)

    try:
        other = Project(api, other_redis, tmp_path / "other")
        other.mark = project.mark
        other.write("both")
        await carry_out(api, other_redis, await plan_deployments(api, other_redis, named(other, "invoices")))
        project.write("both")
        for name in ("orders", None):
            with pytest.raises(ConfigError, match=f"{project.name('both')}/default belongs to the project 'invoices'"):
                await plan_deployments(api, project.redis, named(project, name))
        found = await project.read("both")
        assert found is not None
        assert found["path"] == str(other.root)
        # The same project, whose Redis was made anew.
        (step,) = (await plan_deployments(api, project.redis, named(project, "invoices"))).steps
        assert step.action == "change"
        assert step.warning is not None
    finally:
        await other_redis.flushdb()
        await other_redis.aclose()


async def test_a_deployment_that_somebody_else_registered_is_said_to_be_taken_over(project: Project, api: PrefectApi):
    flow = (await api.request("POST", "/flows/", json={"name": project.name("served")}))["id"]
    served = {"name": "default", "flow_id": flow, "entrypoint": "served.py:main", "path": "/served"}
    await api.request("POST", "/deployments/", json=served)
    project.write("served")
    action, details = (await project.deploy())["served"]
    assert action == "change"
    assert "taken over: it was not registered by Sluice (/served, served.py:main)" in details
    assert (await project.deploy())["served"] == ("unchanged", "")


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


async def test_what_another_machine_registered_from_elsewhere_is_shown_only(project: Project, tmp_path: Path):
    project.write("far")
    await project.deploy()
    deployment = await project.read("far")
    assert deployment
    labels = {**deployment["labels"], "sluice.host": "another-machine"}
    fields = ("name", "flow_id", "tags", "entrypoint")
    body = {**{name: deployment[name] for name in fields}, "path": "/elsewhere", "labels": labels}
    await project.api.request("POST", "/deployments/", json=body)
    project.remove("far")
    action, details = (await project.deploy())["far"]
    assert action == "leave"
    assert "/elsewhere on the machine another-machine cannot be seen from here" in details
    assert await project.read("far")


def command(*words: str, env: dict[str, str], checkout: Path = CHECKOUT) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **env}
    if checkout == CHECKOUT:
        return run_module("services.cli", *words, env=env)
    own = [sys.executable, "-m", "services.cli", *words]  # another checkout has modules of its own
    return subprocess.run(own, cwd=checkout, env=env, capture_output=True, text=True, timeout=100, check=False)


async def test_the_command_shows_the_plan_within_eighty_columns(api: PrefectApi, redis: AsyncRedis, valkey_url: str):
    env = {"SLUICE_REDIS_URL": valkey_url, "PREFECT_API_URL": api.url}
    planned = command("deploy", "--plan", "--json", env=env)
    assert planned.returncode == 0, planned.stderr
    steps = {step["deployment"]: step for step in json.loads(planned.stdout)}
    assert steps["ingest-file/default"]["action"] == "create"
    assert steps["ingest-file/default"]["details"] == ["flows/ingest_file.py:ingest_file"]
    done = command("deploy", env=env)
    assert done.returncode == 0, done.stderr
    assert f"{len(steps)} created." in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    again = command("deploy", "--plan", env=env)
    assert f"plan: {len(steps)} unchanged. Nothing was done." in again.stdout


@pytest.mark.parametrize("words", [["check"], ["deploy"], ["deploy", "--plan"]], ids=" ".join)
async def test_nothing_is_registered_while_anything_is_wrong(
    api: PrefectApi, redis: AsyncRedis, valkey_url: str, tmp_path: Path, words: list[str]
):
    mark = f"wrong-{uuid.uuid4().hex[:8]}"
    for package in ("config", "events", "services", "sluice"):
        shutil.copytree(CHECKOUT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    flows = tmp_path / "flows"
    flows.mkdir()
    (flows / "good.py").write_text(FLOW.format(name=f"{mark}-good"), encoding="utf-8")
    tuned = FLOW.format(name=f"{mark}-zone") + "DEPLOYMENT = {'timezone': 'Europe/Berln', 'parameters': {'sise': 3}}\n"
    (flows / "zone.py").write_text(tuned, encoding="utf-8")
    (flows / "list.py").write_text(f"DEPLOYMENT = ['cron']\n{FLOW.format(name=f'{mark}-list')}", encoding="utf-8")
    rule = {"name": "r", "on": "a", "run": f"{mark}-good/default", "parameters": {"size": 1}, "unknown": 1}
    (tmp_path / "config" / "sluice.yaml").write_text(json.dumps({"rules": [rule]}), encoding="utf-8")
    env = {"SLUICE_REDIS_URL": valkey_url, "PREFECT_API_URL": api.url, "SLUICE_HOME": str(tmp_path)}
    answer = command(*words, env=env, checkout=tmp_path)
    assert answer.returncode == 2, answer.stderr
    errors = [line for line in answer.stderr.splitlines() if line.startswith("error: ")]
    assert f"error: {flows}/list.py:1: DEPLOYMENT: a list does not fit" in answer.stderr
    assert f"error: {flows}/zone.py:5: DEPLOYMENT.timezone: there is no time zone 'Europe/Berln'" in answer.stderr
    assert "rule 'r': unknown: unknown key" in answer.stderr
    assert f"error: {flows}/zone.py:5: DEPLOYMENT.parameters.sise: the flow" in answer.stderr
    assert len(errors) == 4, errors
    body = {"flows": {"name": {"like_": mark}}}
    assert await api.request("POST", "/deployments/count", json=body) == 0


async def test_rules_are_held_against_what_will_be_registered(
    api: PrefectApi, redis: AsyncRedis, valkey_url: str, tmp_path: Path
):
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows" / "load.py").write_text(FLOW.format(name="load-of-tests"), encoding="utf-8")
    rule = {"name": "r", "on": "a", "run": "load-of-tests/default", "parameters": {"sise": 1}}
    (tmp_path / "sluice.yaml").write_text(json.dumps({"rules": [rule]}), encoding="utf-8")
    env = {"SLUICE_REDIS_URL": valkey_url, "PREFECT_API_URL": api.url, "SLUICE_CONFIG": str(tmp_path / "sluice.yaml")}
    answer = command("deploy", env=env)
    assert answer.returncode == 2, answer.stderr
    assert "load-of-tests/default takes no parameter 'sise' — did you mean `size`?" in answer.stderr


async def test_a_work_pool_that_is_not_there_is_an_error_of_check_and_a_warning_of_deploy(
    api: PrefectApi, redis: AsyncRedis, valkey_url: str, tmp_path: Path
):
    mark = f"pool-{uuid.uuid4().hex[:8]}"
    (tmp_path / "flows").mkdir()
    pooled = FLOW.format(name=f"{mark}-pooled") + f"DEPLOYMENT = {{'work_pool': '{mark}'}}\n"
    (tmp_path / "flows" / "pooled.py").write_text(pooled, encoding="utf-8")
    (tmp_path / "flows" / "plain.py").write_text(FLOW.format(name=f"{mark}-plain"), encoding="utf-8")
    (tmp_path / "sluice.yaml").write_text("endpoints: web:router\n", encoding="utf-8")
    (tmp_path / "web.py").write_text("import os\nos.nothing\n", encoding="utf-8")
    env = {"SLUICE_REDIS_URL": valkey_url, "PREFECT_API_URL": api.url, "SLUICE_CONFIG": str(tmp_path / "sluice.yaml")}
    missing = f"{tmp_path}/flows/pooled.py:5: DEPLOYMENT.work_pool: Prefect has no work pool '{mark}' — "
    checked = command("check", env=env)
    assert checked.returncode == 2, checked.stderr
    assert f"error: {missing}" in checked.stderr
    assert f"error: {tmp_path}/sluice.yaml:1: endpoints: web:router: {tmp_path}/web.py, line 2: Attr" in checked.stderr
    (tmp_path / "sluice.yaml").write_text("rules: []\n", encoding="utf-8")
    done = command("deploy", env=env)
    assert done.returncode == 0, done.stderr
    assert f"warning: {missing}" in done.stderr
    assert f"created    {mark}-plain/default" in done.stdout
    assert f"left       {mark}-pooled/default" in done.stdout
