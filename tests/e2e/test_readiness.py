"""Whether the installation is ready has one answer, whoever asks, and it is never yes while work is not done."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from tests.support.installation import Installation

pytestmark = pytest.mark.timeout(600)


@contextmanager
def stopped(pids: list[int]) -> Iterator[None]:
    """The processes are alive, and do nothing."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def pids_of(installation: Installation, *roles: str) -> list[int]:
    status = json.loads(installation.sluice("status", "--json").stdout)
    found = [one["pid"] for role in roles for one in status["roles"][role]["instances"]]
    assert found
    return found


def pid_of_prefect(installation: Installation) -> int:
    port = urlsplit(installation.status["prefect_api"]).port
    (found,) = (
        process.pid
        for process in psutil.Process(installation.process.pid).children(recursive=True)
        if any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in process.net_connections())
    )
    return found


def health(installation: Installation) -> httpx.Response:
    return httpx.get(f"{installation.status['api']}/health/ready", timeout=20)


def codes(installation: Installation) -> list[str]:
    answer = installation.sluice("status", "--json", check=False)
    status = json.loads(answer.stdout)
    assert answer.returncode == (0 if status["ready"] else 1)
    assert all(one["remedy"] for one in status["reasons"])
    return [one["code"] for one in status["reasons"] if one["level"] == "not-ready"]


def test_roles_that_freeze_make_every_check_fail_and_are_killed_and_started_again(installation: Installation) -> None:
    def both_silent() -> dict[str, Any] | None:
        told: dict[str, Any] = health(installation).json()
        return None if told["roles"]["listeners"] or told["roles"]["executor"] else told

    def replaced() -> bool:
        now = json.loads(installation.sluice("status", "--json", check=False).stdout)["roles"]
        pids = [one["pid"] for role in ("listeners", "executor") for one in now[role]["instances"]]
        return len(pids) == 2 and not set(pids) & set(frozen)

    installation.until(lambda: health(installation).status_code == 200, "health says ready", pause_seconds=0.3)
    assert installation.sluice("status", "--role", "executor", check=False).returncode == 0
    frozen = pids_of(installation, "listeners", "executor")
    with stopped(frozen):
        told = installation.until(both_silent, "health says that both roles are silent", pause_seconds=0.3)
        assert len(told["problems"]) == 2
        for problem in told["problems"]:
            assert re.fullmatch(
                r"role (listeners|executor) is not ready: \S+ has been silent for more than \d+ s", problem
            )
        assert codes(installation) == ["role-silent", "role-silent"]
        assert installation.sluice("status", "--role", "executor", check=False).returncode == 1
        assert installation.sluice("status", "--role", "router", check=False).returncode == 0
        installation.until(replaced, "the frozen roles are others now", pause_seconds=0.5)
    installation.until(lambda: health(installation).status_code == 200, "health says ready again", pause_seconds=0.3)
    assert "process is frozen" in installation.output.read_text()
    assert installation.sluice("status", check=False).returncode == 0


def test_a_watched_folder_that_is_gone_is_not_ready_and_says_what_to_do(
    installation: Installation, inbox: Path
) -> None:
    elsewhere = inbox.with_name("inbox-elsewhere")
    inbox.rename(elsewhere)
    try:
        installation.until(lambda: codes(installation) == ["watch-gone"], "the status says so", pause_seconds=0.3)
        installation.until(lambda: health(installation).status_code == 503, "health says so", pause_seconds=0.3)
    finally:
        elsewhere.rename(inbox)
    installation.until(lambda: codes(installation) == [], "the status is ready again", pause_seconds=0.3)


def test_while_prefect_hangs_no_command_waits_for_it(installation: Installation) -> None:
    """Prefect's own client would try for minutes."""
    with stopped([pid_of_prefect(installation)]):
        assert "prefect-unreachable" in codes(installation)
        for command in ("runs list", "deploy --plan"):
            answer = installation.sluice(*command.split(), check=False, within_seconds=60)
            assert (answer.returncode, "does not answer (timed out)" in answer.stderr) == (1, True), answer
        assert installation.sluice("events", "list", check=False).returncode == 0
    installation.until(lambda: codes(installation) == [], "the status is ready again", pause_seconds=0.3)
