"""Nothing that `sluice up` or one of its runs has started outlives it, however it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from tests.support.installation import Installation
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(600)

MARK = "THE_TEST_THAT_STARTED_IT"

FLOWS = '''
import os, subprocess, time
from pathlib import Path
from prefect import flow
from sluice import wait_for_signal

@flow
def deaf(out: str):
    """Closes every descriptor that it has, and leaves a process in a session of its own."""
    left = subprocess.Popen(["sleep", "3000"], start_new_session=True)
    Path(out).write_text(f"{os.getpid()} {left.pid}")
    os.closerange(3, 4096)
    time.sleep(3000)

@flow
def stubborn(out: str):
    """Does not end when it is asked to."""
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(out).write_text(str(os.getpid()))
    while True:
        time.sleep(1)

@flow
def waiting(out: str):
    Path(out).write_text(str(os.getpid()))
    wait_for_signal("nobody-answers")
'''


class Family:
    """Every process that ``sluice up`` leads to: those below it, and those with its mark in their environment."""

    def __init__(self, installation: Installation, mark: str) -> None:
        self._mark = mark
        self._known = {installation.process.pid: psutil.Process(installation.process.pid)}

    def look(self) -> list[psutil.Process]:
        """Those that live."""
        for process in list(self._known.values()):
            with contextlib.suppress(psutil.Error):
                self._known |= {child.pid: child for child in process.children(recursive=True)}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self._mark:
                    self._known[process.pid] = process
        return [process for process in self._known.values() if is_alive(process)]


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Installation, Family]]:
    """An installation with three runs that do not end by themselves."""
    mark = uuid.uuid4().hex
    env = {MARK: mark, "SLUICE_EXECUTOR__DEPLOYMENTS": '["*"]', "SLUICE_EXECUTOR__SLOTS": "3"}
    installation = Installation(tmp_path / ".sluice", env=env)
    family: Family | None = None
    try:
        installation.start()
        family = Family(installation, mark)
        start_runs(installation, tmp_path / "project")
        yield installation, family
    finally:
        with contextlib.suppress(Exception):
            installation.stop()
        for process in family.look() if family else []:
            with contextlib.suppress(psutil.Error):
                process.kill()


def start_runs(installation: Installation, folder: Path) -> None:
    folder.mkdir()
    (folder / "kinds.py").write_text(FLOWS)
    for name in ("deaf", "stubborn", "waiting"):
        flow = installation.prefect.post("/flows/", json={"name": name}).json()
        body = {"name": "own", "flow_id": flow["id"], "path": str(folder), "entrypoint": f"kinds.py:{name}"}
        answer = installation.prefect.post("/deployments/", json={**body, "enforce_parameter_schema": False})
        answer.raise_for_status()
        given = {"parameters": {"out": str(folder / name)}}
        installation.prefect.post(f"/deployments/{answer.json()['id']}/create_flow_run", json=given).raise_for_status()
        wait_until((folder / name).exists, what=f"the run of {name} to begin")


@contextlib.contextmanager
def held_open(installation: Installation) -> Iterator[None]:
    """Connections that nobody closes, to each of the three servers."""
    ports = [
        urlsplit(address).port
        for address in (
            installation.status["prefect_api"],
            installation.status["api"],
            installation.access["SLUICE_REDIS_URL"],
        )
    ]
    with contextlib.ExitStack() as stack:
        for port in ports:
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            connection.sendall(b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        yield


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_nothing_survives_sluice_up(running: tuple[Installation, Family], number: signal.Signals) -> None:
    installation, family = running
    assert (
        len(family.look()) > 12
    )  # supervisor, two servers, five roles, process template, fork server, slots, runs, what they left
    with held_open(installation):
        os.kill(installation.process.pid, number)
        installation.process.wait(60)
        if number == signal.SIGKILL:
            wait_until(lambda: not family.look(), within_seconds=120, what="every process to be gone")
        assert [" ".join(one.cmdline()) for one in family.look()] == []


def test_nothing_survives_when_parents_and_slots_were_killed_before(running: tuple[Installation, Family]) -> None:
    installation, family = running
    assert family.look()
    (executor,) = installation.status["roles"]["executor"]["instances"]
    (process_template,) = psutil.Process(executor["pid"]).children()
    (warm,) = process_template.children()
    slots = warm.children()
    assert len(slots) >= 3
    for process in (warm, *slots):  # nobody is left to end what their runs have left behind
        process.kill()
    wait_until(installation._ready, what="the executor to be ready again")
    installation.stop()  # with SIGINT
    assert [" ".join(one.cmdline()) for one in family.look()] == []
