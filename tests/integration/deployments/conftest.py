"""A folder with flows, an installation that registers them, and a real Prefect server."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from config.settings import CHECKOUT
from events.errors import NotFound
from services.deployments.declared import read_declarations
from services.deployments.deploy import carry_out, plan_deployments
from services.prefect_api.client import PrefectApi, connect
from services.store.connection import AsyncRedis
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


def command(*words: str, env: dict[str, str], checkout: Path = CHECKOUT) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **env}
    if checkout == CHECKOUT:
        return run_module("services.cli", *words, env=env)
    own = [sys.executable, "-m", "services.cli", *words]  # another checkout has modules of its own
    return subprocess.run(own, cwd=checkout, env=env, capture_output=True, text=True, timeout=100, check=False)
