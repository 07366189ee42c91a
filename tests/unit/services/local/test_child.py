"""What `sluice up` keeps running is started again when it ends, and killed when it is alive and does nothing."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from services.home.sign_of_life import sign_path
from services.local.child import Child
from services.local.embedded_servers import Server
from tests.support.waiting import wait_until

LIVES = """
import asyncio, os, pathlib, sys
from services.home import sign_of_life
sign_of_life.SIGN_SECONDS = 0.05
asyncio.run(sign_of_life.give_signs(sign_of_life.sign_path(pathlib.Path(sys.argv[1]), os.getpid())))
"""
FROZEN_SECONDS = 1.0


@pytest.fixture
def child(tmp_path: Path, checkout: Path) -> Iterator[Child]:
    env = {**os.environ, "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-c", LIVES, str(tmp_path)]
    made = Child(
        "router",
        lambda: Server("role router", command, log_file=tmp_path / "log", env=env),
        home=tmp_path,
        frozen_seconds=FROZEN_SECONDS,
    )
    made.start()
    yield made
    if made.server is not None:
        made.server.kill()
        made.server.process.wait()


def pid_of(child: Child) -> int:
    return child.server.process.pid if child.server is not None else 0


def gives_signs(child: Child, home: Path) -> bool:
    child.keep_running()
    return child.server is not None and sign_path(home, pid_of(child)).exists()


def test_a_process_that_is_frozen_is_killed_and_started_again_and_the_log_says_so(child: Child, tmp_path: Path) -> None:
    wait_until(lambda: gives_signs(child, tmp_path))
    first = pid_of(child)
    os.kill(first, signal.SIGSTOP)
    with structlog.testing.capture_logs() as logs:
        wait_until(lambda: gives_signs(child, tmp_path) and pid_of(child) != first)
    assert [(line["event"].partition(":")[0], line["process"]) for line in logs] == [
        ("process is frozen", "router"),
        ("process ended, starting it again", "router"),
    ]
    assert logs[0]["pid"] == first
    assert (logs[1]["ended"], logs[1]["ended_in_five_minutes"]) == ("SIGKILL", 1)
    assert not sign_path(tmp_path, first).exists()


def test_nobody_is_taken_for_frozen_by_a_supervisor_that_was_stopped_itself(
    child: Child, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_until(lambda: gives_signs(child, tmp_path))
    first = pid_of(child)
    os.kill(first, signal.SIGSTOP)  # as with all processes of a machine that sleeps
    child.keep_running()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 3600)
    with structlog.testing.capture_logs() as logs:
        child.keep_running()
    assert logs == []
    os.kill(first, signal.SIGCONT)
