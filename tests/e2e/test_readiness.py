"""Whether the installation is ready has one answer, whoever asks."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from demo.installation import Installation

pytestmark = pytest.mark.timeout(600)


@contextmanager
def hung(installation: Installation, *roles: str) -> Iterator[None]:
    """The processes of the roles, stopped: alive, and silent."""
    status = json.loads(installation.sluice("status", "--json").stdout)
    pids = [one["pid"] for role in roles for one in status["roles"][role]["instances"]]
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def health(installation: Installation) -> httpx.Response:
    return httpx.get(f"{installation.status['api']}/health/ready", timeout=10)


def test_roles_that_go_silent_make_every_check_fail_until_they_are_back(installation: Installation) -> None:
    def both_silent() -> dict[str, Any] | None:
        told: dict[str, Any] = health(installation).json()
        return None if told["roles"]["listeners"] or told["roles"]["executor"] else told

    installation.until(lambda: health(installation).status_code == 200, "health says ready", pause_seconds=0.3)
    assert installation.sluice("status", "--role", "executor", check=False).returncode == 0
    with hung(installation, "listeners", "executor"):
        told = installation.until(both_silent, "health says that both roles are silent", pause_seconds=0.3)
        assert health(installation).status_code == 503
        assert len(told["problems"]) == 2
        for problem in told["problems"]:
            assert re.fullmatch(
                r"role (listeners|executor) is not ready: \S+ has been silent for more than \d+ s", problem
            )
        answer = installation.sluice("status", "--json", check=False)
        assert answer.returncode == 1
        status = json.loads(answer.stdout)
        assert not status["ready"]
        assert [problem.split(":")[0] for problem in status["problems"]] == [p.split(":")[0] for p in told["problems"]]
        assert installation.sluice("status", "--role", "executor", check=False).returncode == 1
        assert installation.sluice("status", "--role", "router", check=False).returncode == 0
    installation.until(lambda: health(installation).status_code == 200, "health says ready again", pause_seconds=0.3)
    assert installation.sluice("status", check=False).returncode == 0
