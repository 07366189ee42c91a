"""What the start template forks is a process as the supervisor would have started it itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no start template")

SUPERVISOR = """
import json, os, signal, subprocess, sys, tempfile
from pathlib import Path
from config.logs import configure_logging
from config.settings import LogSettings
from services.common.process_tree import adopt_orphans
from services.local.embedded_servers import PYTHON_MODULE, Server
from services.local.start_template import StartTemplate

configure_logging(LogSettings())  # on standard error
adopt_orphans()
lock = tempfile.TemporaryFile()
folder = Path(sys.argv[1])
env = {"PATH": os.environ["PATH"], "MINE": "yes", "PREFECT_HOME": str(folder / "prefect"), "PYTHONPATH": os.getcwd()}
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
template = StartTemplate.fork(env)

def start(name, *arguments):
    command = [*PYTHON_MODULE, "tests.support.forked", *arguments]
    return Server(name, command, log_file=folder / name, env=env, cwd=folder, template=template)

first = start("first", "a", "b c")
print(json.dumps([os.getpid(), template.pid, first.process.pid, first.process.wait(60)]), flush=True)
staying = start("staying", "stay")
try:
    staying.process.wait(0.1)
except subprocess.TimeoutExpired:
    print(json.dumps([staying.process.pid]), flush=True)
while not (folder / "staying").read_text().strip():
    pass
staying.stop()
print(json.dumps([staying.process.returncode]), flush=True)
os.kill(template.pid, signal.SIGKILL)
print(json.dumps([start("alone").process.wait(60)]), flush=True)
template = StartTemplate.fork(env)
left = start("left", "stay")
print(json.dumps([template.pid, left.process.pid]), flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("forked")


@pytest.fixture(scope="module")
def said(folder: Path) -> Iterator[list[Any]]:
    """What a supervisor told of five processes, and at last the supervisor itself, which has one that stays."""
    checkout = Path(__file__).parents[4]
    command = [sys.executable, "-c", SUPERVISOR, str(folder)]
    with subprocess.Popen(command, cwd=checkout, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        lines = [json.loads(process.stdout.readline()) for _ in range(5)]
        yield [*lines, process]
        process.kill()


def test_it_is_a_child_and_a_session_of_its_own_with_what_it_was_given(said: list[Any], folder: Path) -> None:
    supervisor, template, pid, code = said[0]
    told = json.loads((folder / "first").read_text())
    assert told["pid"] == told["session"] == pid
    assert told["parent"] == supervisor
    assert pid != template
    assert code == 7
    assert told["arguments"] == ["a", "b c"]
    assert told["folder"] == str(folder)
    assert told["environment"] == {
        "PATH": os.environ["PATH"],
        "MINE": "yes",
        "PREFECT_HOME": str(folder / "prefect"),
        "PYTHONPATH": str(Path(__file__).parents[4]),
    }
    assert told["imported"]
    assert told["handlers"] == [True, True]


def test_it_holds_nothing_open_that_the_supervisor_has_open(said: list[Any], folder: Path) -> None:
    told = json.loads((folder / "first").read_text())
    assert len(told["descriptors"]) == 4  # standard input, output and error, and the folder that is being listed


def test_it_is_stopped_and_how_it_ended_is_known(said: list[Any]) -> None:
    assert said[2] == [-signal.SIGTERM]


def test_without_its_template_a_process_is_started_all_the_same(said: list[Any], folder: Path) -> None:
    assert said[3] == [7]
    told = json.loads((folder / "alone").read_text())
    assert not told["imported"]
    assert told["environment"]["MINE"] == "yes"


def test_it_shares_the_memory_of_what_the_template_has_imported(said: list[Any]) -> None:
    """Without `gc.freeze`, a search for garbage would write to nearly all of it."""
    _, pid = said[4]
    found = {
        name: int(size.split()[0])
        for name, _, size in (
            line.partition(":") for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        )
        if size.endswith("kB")
    }
    assert found["Shared_Dirty"] > 4 * found["Private_Dirty"]


def test_it_ends_with_the_supervisor_and_so_does_the_template(said: list[Any]) -> None:
    """The last one here."""
    *_, pids, supervisor = said
    processes = [psutil.Process(pid) for pid in pids]
    supervisor.kill()
    supervisor.wait()
    for process in processes:
        wait_until(lambda process=process: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
