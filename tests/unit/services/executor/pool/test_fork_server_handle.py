"""What a fork server and the flows are given: their environment, their sources, and messages while they are there."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import cast

import pytest

from services.common.project_imports import CHECKOUT
from services.executor.messages import FlowSource, ProcessMessage, Stop
from services.executor.pipes import from_line
from services.executor.pool.fork_server_handle import (
    PASSED_ON,
    ForkServerHandle,
    environment_of_flows,
    say,
    sources_of,
)
from services.prefect_api.deployments import Deployment
from sluice.protocol import CONTRACTS_VARIABLE, FOLDERS_VARIABLE

API = "http://127.0.0.1:4200/api"


def environment(environ: dict[str, str], folders: tuple[str, ...] = ()) -> dict[str, str]:
    return environment_of_flows(environ, prefect_api_url=API, folders=folders, contracts=("c.yaml",))


def test_flows_get_none_of_sluices_secrets_and_all_that_is_not_sluices() -> None:
    given = environment({"SLUICE_API__TOKEN": "secret", "sluice_other": "x", "HOME": "/h", "PREFECT_API_KEY": "k"})
    assert given["HOME"] == "/h"
    assert given["PREFECT_API_KEY"] == "k"
    assert given["PREFECT_API_URL"] == API
    assert not {name for name in given if name.upper().startswith("SLUICE_")} - {FOLDERS_VARIABLE, CONTRACTS_VARIABLE}


@pytest.mark.parametrize("name", sorted(PASSED_ON))
def test_settings_that_flows_may_read_are_passed_on(name: str) -> None:
    assert environment({name: "value"})[name] == "value"


def test_flows_are_told_where_they_may_read_whatever_was_set_before() -> None:
    given = environment({FOLDERS_VARIABLE: '["/etc"]', CONTRACTS_VARIABLE: '["/etc"]'}, folders=("/in", "/ü"))
    assert json.loads(given[FOLDERS_VARIABLE]) == ["/in", "/ü"]
    assert json.loads(given[CONTRACTS_VARIABLE]) == ["c.yaml"]


def test_sluices_own_folder_is_no_place_to_import_from(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(CHECKOUT)
    path = os.pathsep.join(["", CHECKOUT, str(link), "/theirs"])
    assert environment({"PYTHONPATH": path})["PYTHONPATH"] == "/theirs"
    assert "PYTHONPATH" not in environment({"PYTHONPATH": CHECKOUT})


def _deployment(*, path: str | None, entrypoint: str | None = "flows/a.py:main", remote: bool = False) -> Deployment:
    return Deployment("d", "f/d", "f", path, entrypoint, remote, None, (), {})


def test_flows_on_this_machine_are_sources_once_by_their_real_path(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    found = sources_of(
        [
            _deployment(path=str(tmp_path)),
            _deployment(path=str(tmp_path / "link")),
            _deployment(path="/elsewhere", remote=True),
            _deployment(path=str(tmp_path), entrypoint=None),
        ]
    )
    assert found == {FlowSource(os.path.realpath(tmp_path), "flows/a.py:main")}


class Line:
    """Takes the place of a connection to a process."""

    def __init__(self, *, closing: bool = False) -> None:
        self.said: list[ProcessMessage] = []
        self.closing = closing

    def is_closing(self) -> bool:
        return self.closing

    def write(self, line: bytes) -> None:
        self.said.append(from_line(line))


def test_a_message_is_said_while_there_is_a_connection() -> None:
    line, closing = Line(), Line(closing=True)
    handle = ForkServerHandle(1, cast(asyncio.subprocess.Process, None))
    handle.say(Stop())
    handle.writer = cast(asyncio.StreamWriter, line)
    handle.say(Stop())
    say(cast(asyncio.StreamWriter, closing), Stop())
    assert (line.said, closing.said) == ([Stop()], [])


class Process:
    """Takes the place of a fork server's process, which ends when it is told to, or is killed."""

    def __init__(self) -> None:
        self.over = asyncio.Event()
        self.killed = False

    async def wait(self) -> int:
        await self.over.wait()
        return 0

    def kill(self) -> None:
        self.killed = True
        self.over.set()


@pytest.mark.parametrize("obedient", [True, False])
async def test_a_fork_server_that_does_not_end_in_time_is_killed(obedient: bool) -> None:
    process = Process()
    if obedient:
        process.over.set()
    await ForkServerHandle(1, cast(asyncio.subprocess.Process, process)).end(within_seconds=0.01)
    assert process.killed is not obedient
