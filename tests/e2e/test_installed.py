"""The installed distribution in a project of the user's own: from `sluice init` to an approved order."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.installed import CHECKOUT, Environment, build_wheel, plain_environment
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(600)

OWN_FLOW = """
import json
import config, events, flows, services
from acme import NAME
from prefect import flow

@flow(name="whose")
def whose(out: str):
    from pathlib import Path
    import events.late
    Path(out).write_text(json.dumps([config.WHOSE, events.late.WHOSE, flows.WHOSE, services.WHOSE, NAME]))
"""

OWN_ROUTES = """
import os
import config
from fastapi import APIRouter
from sluice import publish

router = APIRouter()

@router.get("/whose")
def whose() -> dict[str, str]:
    return {"whose": config.WHOSE, "given": os.environ["OF_THE_PROJECT"], "event": publish("nobody.asked", {})}
"""


@dataclass
class InstalledProject:
    """A project whose `sluice up` runs, and the environment that Sluice is installed in."""

    environment: Environment
    folder: Path
    process: subprocess.Popen[bytes]
    variables: dict[str, str]
    installed: dict[str, int]

    def sluice(self, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return self.environment.sluice(*words, cwd=cwd or self.folder, env=self.variables)

    def rows(self, *words: str) -> list[dict[str, Any]]:
        answer = self.sluice(*words, "--json")
        assert answer.returncode == 0, answer.stderr
        found: list[dict[str, Any]] = json.loads(answer.stdout)
        return found

    def run_of(self, name: str, state: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            return next(
                (run for run in self.rows("runs", "list") if (run["name"], run["state"]) == (name, state)), None
            )

        found = wait_until(look, what=f"the run {name!r} to be {state}")
        assert found is not None
        return found

    def prefect(self) -> httpx.Client:
        access = json.loads(self.sluice("env", "--json").stdout)
        user, _, password = access["PREFECT_API_AUTH_STRING"].partition(":")
        return httpx.Client(base_url=access["PREFECT_API_URL"], auth=(user, password), timeout=60)


def tutorial() -> list[str]:
    """The commands of docs/tutorial.md, in order."""
    text = (CHECKOUT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    return [line.removeprefix("$ ") for block in blocks for line in block.splitlines() if line.startswith("$ ")]


INSTALLATION = ["python3 -m venv .venv", ". .venv/bin/activate", "pip install 'sluice-events[service]'"]
"""What the fixture does offline instead."""
LONG = 250
"""Characters of a path that nothing fails in: sockets of Unix take 107, and the first line of a script some 127."""
COMMANDS = tutorial()
START = COMMANDS.index("sluice up")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InstalledProject]:
    """The project of the tutorial, followed until `sluice up` is ready; then with packages of the user's own."""
    top = tmp_path_factory.mktemp("installed") / "Aufträge 2026"
    top /= "/".join(["x" * 50] * 4)[: LONG - len(str(top))].rstrip("/")
    top.mkdir(parents=True)
    environment = Environment.make(top / ".venv", build_wheel(top), dependencies=True)
    installed = files_of(environment)
    path = {"PATH": f"{environment.folder / 'bin'}:{os.environ['PATH']}", "HOME": str(top)}
    variables = {f"SLUICE_PORTS__{name}": "0" for name in ("PREFECT", "REDIS", "API")} | path
    assert COMMANDS[:3] == INSTALLATION
    folder = top
    for command in COMMANDS[3:START]:
        if command.startswith("cd "):
            folder = top / command.removeprefix("cd ")
        else:
            done = shell(command, folder, variables)
            assert done.returncode == 0, (command, done.stderr)
    add_own_packages(folder)
    log = top / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            environment.command("up"), cwd=folder, env=plain_environment(variables), stdout=output, stderr=output
        )
    try:
        found = InstalledProject(environment, folder, process, variables, installed)

        def ready() -> bool:
            assert process.poll() is None, log.read_text(encoding="utf-8")
            return found.sluice("status").returncode == 0

        wait_until(ready, within_seconds=240, what="the installation to be ready")
        yield found
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(30)
    assert code == 0, log.read_text(encoding="utf-8")
    assert "warning: " in log.read_text(encoding="utf-8")


def shell(command: str, folder: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A line as a person types it."""
    return subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=plain_environment(variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def add_own_packages(folder: Path) -> None:
    """Packages with the names of Sluice's, a flow that needs them, and a flow that needs a missing library."""
    for package in ("config", "events", "flows", "services"):
        (folder / package).mkdir(exist_ok=True)
        (folder / package / "__init__.py").write_text(f"WHOSE = 'user, {package}'\n", encoding="utf-8")
    (folder / "events" / "late.py").write_text("WHOSE = 'user, late'\n", encoding="utf-8")
    (folder / "src" / "acme").mkdir(parents=True)
    (folder / "src" / "acme" / "__init__.py").write_text("NAME = 'acme'\n", encoding="utf-8")
    (folder / "flows" / "nested").mkdir()
    (folder / "flows" / "nested" / "whose.py").write_text(OWN_FLOW, encoding="utf-8")
    (folder / "web.py").write_text(OWN_ROUTES, encoding="utf-8")
    (folder / ".env").write_text("OF_THE_PROJECT=from its .env\n", encoding="utf-8")
    with (folder / "sluice.yaml").open("a", encoding="utf-8") as file:
        file.write("\nendpoints: web:router\n")
    (folder / "flows" / "needy.py").write_text(
        "import a_library_that_is_not_installed\nfrom prefect import flow\n@flow\ndef needy(): ...\n", encoding="utf-8"
    )


def test_the_tutorial_leads_from_a_dropped_order_to_an_approved_one(project: InstalledProject) -> None:
    for command in COMMANDS[START + 1 :]:
        done = partial(succeeded, command, project)
        wait_until(done, what=f"`{command}` to succeed")
        if command.startswith("echo "):
            project.run_of("order 1042.json", "Paused")
    run = project.run_of("order 1042.json", "Completed")
    assert run["message"] == "order 1042 over 129.50 was approved by ada"
    wait_until((project.folder / "inbox" / "done" / "1042.json").exists, what="the order to be in done/")


def succeeded(command: str, project: InstalledProject) -> bool:
    return shell(command, project.folder, project.variables).returncode == 0


def test_prefect_has_the_deployments_of_the_project_and_no_others(project: InstalledProject) -> None:
    with project.prefect() as prefect:
        found = prefect.post("/deployments/filter", json={}).raise_for_status().json()
    assert sorted(one["entrypoint"] for one in found) == ["flows/nested/whose.py:whose", "flows/order.py:order"]
    assert {one["path"] for one in found} == {str(project.folder)}


def test_the_users_packages_win_in_a_run(project: InstalledProject, tmp_path: Path) -> None:
    with project.prefect() as prefect:
        deployment = prefect.get("/deployments/name/whose/default").raise_for_status().json()["id"]
        body = {"name": "whose is it", "parameters": {"out": str(tmp_path / "out.json")}}
        prefect.post(f"/deployments/{deployment}/create_flow_run", json=body).raise_for_status()
    project.run_of("whose is it", "Completed")
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8")) == [
        "user, config",
        "user, late",
        "user, flows",
        "user, services",
        "acme",
    ]


def test_its_own_routes_are_served_with_its_packages_and_its_env_file(project: InstalledProject) -> None:
    access = json.loads(project.sluice("env", "--json").stdout)
    route = f"{access['SLUICE_API_URL']}/endpoints/whose"
    token = {"authorization": f"Bearer {access['SLUICE_API_TOKEN']}"}
    assert httpx.get(route, headers={"authorization": "Bearer no"}).status_code == 401
    answer = httpx.get(route, headers=token, timeout=60).raise_for_status().json()
    assert (answer["whose"], answer["given"]) == ("user, config", "from its .env")
    wait_until(lambda: project.sluice("events", "show", answer["event"]).returncode == 0, what="the event")
    assert "GET /endpoints/whose" in project.sluice("status").stdout


def test_sluice_and_prefect_reach_the_servers_from_a_new_shell(project: InstalledProject) -> None:
    command = 'eval "$(sluice env)" && sluice status && python -m prefect deployment inspect whose/default'
    done = shell(command, project.folder, project.variables)
    assert done.returncode == 0, done.stderr
    assert "flows/nested/whose.py:whose" in done.stdout


def test_the_project_is_found_from_a_folder_below(project: InstalledProject) -> None:
    answer = project.sluice("status", "--json", cwd=project.folder / "src" / "acme")
    assert answer.returncode == 0, answer.stderr
    status = json.loads(answer.stdout)
    assert status["home"] == str(project.folder / ".sluice")
    assert status["watches"] == {"inbox": str(project.folder / "inbox")}


def test_check_tells_of_the_missing_library_with_exit_2(project: InstalledProject) -> None:
    answer = project.sluice("check")
    assert answer.returncode == 2
    assert "needy.py: it cannot be imported" in answer.stderr


def test_nothing_is_written_where_sluice_is_installed(project: InstalledProject) -> None:
    assert files_of(project.environment) == project.installed


def files_of(environment: Environment) -> dict[str, int]:
    found = environment.site_packages.joinpath("sluice").rglob("*")
    return {str(path): path.stat().st_mtime_ns for path in found if path.is_file() and path.suffix != ".pyc"}
