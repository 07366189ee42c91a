"""What other projects, checkouts, machines and programs have registered, and what a deploy does about it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from config.settings import RedisSettings
from events.errors import ConfigError
from services.deployments.declared import Declarations, read_declarations
from services.deployments.deploy import carry_out, plan_deployments
from services.prefect_api.client import PrefectApi
from services.store.connection import connect as connect_redis
from tests.integration.deployments.conftest import Project, command


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
