"""`sluice deploy` and `sluice check` as commands."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path

import pytest

from config.settings import CHECKOUT
from services.prefect_api.client import PrefectApi
from services.store.connection import AsyncRedis
from tests.integration.deployments.conftest import FLOW, command


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
