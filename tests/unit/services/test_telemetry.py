"""Prefect's telemetry is off wherever Sluice runs: nothing is written to the user's home, nothing is sent."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from config.settings import CHECKOUT

USES_PREFECT = "import services.cli, prefect, os; print(os.environ.get('DO_NOT_TRACK'))"
"""What every role and command does: Prefect counts the users of terminals as it is imported."""

NO_CI = {"CI", "GITHUB_ACTIONS", "GITLAB_CI", "JENKINS_URL", "TEAMCITY_VERSION", "DRONE", "BUDDY", "CI_NAME"}


def in_a_terminal(code: str, *, home: Path, **given: str) -> str:
    """Run the code as a user of a terminal does, with a fresh home; answers what it printed."""
    kept = {name: value for name, value in os.environ.items() if name not in NO_CI and not name.startswith("PREFECT_")}
    kept.pop("DO_NOT_TRACK", None)
    terminal, end = pty.openpty()
    env = {**kept, "HOME": str(home), "PYTHONPATH": str(CHECKOUT), "PREFECT_SERVER_ANALYTICS_ENABLED": "true", **given}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=end,
        stdout=subprocess.PIPE,
        stderr=end,  # a terminal: otherwise Prefect does not count
        cwd=CHECKOUT,
        env=env,
    )
    os.close(end)
    said, _ = process.communicate(timeout=120)
    os.close(terminal)
    assert process.returncode == 0
    return said.decode().strip()


@pytest.mark.skipif(sys.platform == "win32", reason="wants a pseudo-terminal")
def test_no_command_and_no_role_leaves_a_file_in_the_users_home(tmp_path: Path) -> None:
    assert in_a_terminal(USES_PREFECT, home=tmp_path) == "1"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_user_who_wants_to_be_counted_is(tmp_path: Path) -> None:
    shown = "import services.cli, os; print(os.environ['DO_NOT_TRACK'])"
    assert in_a_terminal(shown, home=tmp_path, DO_NOT_TRACK="0") == "0"
