"""`executor.python`: flows are read and run in the environment of their project, with libraries that Sluice has not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from config.settings import CHECKOUT
from services.prefect_api.client import connect
from services.prefect_api.deployments import read_by_name
from services.store.connection import AsyncRedis
from tests.support.waiting import eventually

FLOW = """
import json, os, subprocess, sys
import a_library_of_the_project
from prefect import flow
from sluice import wait_for_signal

DEPLOYMENT = {{"executor": "{name}"}}

@flow(name="{name}")
def main(out: str):
    child = subprocess.run([sys.executable, "-c", "import sluice"], capture_output=True, text=True)
    library = a_library_of_the_project
    with open(out, "w") as file:
        json.dump([library.WHOSE, sys.prefix, library.PID != os.getpid(), child.stderr], file)
"""


class Project:
    """A project with a virtual environment of its own, in which there is one library and nothing else."""

    def __init__(self, folder: Path, prefect_url: str, valkey_url: str) -> None:
        self.folder = folder
        self.name = f"own-{uuid4().hex[:8]}"
        self.venv = folder / "venv"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(self.venv)], check=True)
        (self.site_packages,) = self.venv.glob("lib/python*/site-packages")
        (self.site_packages / "a_library_of_the_project.py").write_text(
            "import os, time\ntime.sleep(0.3)\nWHOSE, PID = 'the project', os.getpid()\n"
        )
        (folder / "sluice.yaml").write_text("flows: [flows]\n")
        (folder / "flows").mkdir()
        (folder / "flows" / "needs_it.py").write_text(FLOW.format(name=self.name))
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self.env = {
            **kept,
            "PYTHONPATH": str(CHECKOUT),
            "SLUICE_CONFIG": str(folder / "sluice.yaml"),
            "SLUICE_HOME": str(folder / ".sluice"),
            "SLUICE_REDIS_URL": valkey_url,
            "SLUICE_EXECUTOR__NAME": self.name,
            "PREFECT_API_URL": prefect_url,
        }

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "services.cli", *words]

    def sluice(self, *words: str, python: str = "venv") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            env={**self.env, "SLUICE_EXECUTOR__PYTHON": python},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture
def project(tmp_path: Path, prefect_url: str, valkey_url: str, redis: AsyncRedis) -> Iterator[Project]:
    return Project(tmp_path, prefect_url, valkey_url)


async def test_a_flow_is_deployed_and_run_with_a_library_that_sluice_does_not_have(project: Project) -> None:
    done = project.sluice("deploy")
    assert done.returncode == 0, done.stderr
    assert "cannot be imported" not in done.stderr
    out = project.folder / "out.json"
    role = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs
        project.command("run", "executor"), env={**project.env, "SLUICE_EXECUTOR__PYTHON": "venv"}, cwd=project.folder
    )
    try:
        async with connect(project.env["PREFECT_API_URL"]) as api:
            deployment = await read_by_name(api, f"{project.name}/default")

            async def has_run_in_a_fork() -> bool:
                body = {"parameters": {"out": str(out)}}
                run = await api.request("POST", f"/deployments/{deployment.id}/create_flow_run", json=body)

                async def ended() -> str | None:
                    assert role.poll() is None, "the executor runs"
                    state = (await api.request("GET", f"/flow_runs/{run['id']}"))["state_type"]
                    return state if state in {"COMPLETED", "FAILED", "CRASHED"} else None

                assert await eventually(ended, what="the run to end") == "COMPLETED"
                whose, prefix, imported_before, said = json.loads(out.read_text())
                assert (whose, prefix, said) == ("the project", str(project.venv), "")
                return imported_before

            # The first fork server may start before it is told of the flow.
            await eventually(has_run_in_a_fork, what="a run to find the library imported")
    finally:
        role.send_signal(signal.SIGTERM)
        assert role.wait(30) == 0


def test_an_environment_that_cannot_be_used_is_told_with_exit_2(project: Project) -> None:
    for name, version in (("redis", "5.0.1"), ("prefect", "2.19.0"), ("sluice_events", "0.0.1"), ("rich", "99.0")):
        metadata = project.site_packages / f"{name}-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    told = project.sluice("check")
    assert told.returncode == 2, told.stderr
    assert "has redis 5.0.1, and Sluice needs <9,>=8.1" in told.stderr
    assert "has prefect 2.19.0" in told.stderr
    assert "has sluice-events 0.0.1" in told.stderr
    assert "rich" not in told.stderr
    for wrong in ("no-such-folder", "/bin/true"):
        told = project.sluice("check", python=wrong)
        assert told.returncode == 2, told.stderr
        assert "SLUICE_EXECUTOR__PYTHON" in told.stderr
        assert "Traceback" not in told.stderr
