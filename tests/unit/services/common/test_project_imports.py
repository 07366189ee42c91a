"""What a user's code is imported with."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

IMPORT = """
import sys
from services.common.project_imports import enter_project
enter_project(sys.argv[1])
import helping
print(helping.VERSION)
"""


def imported(project: Path, checkout: Path) -> str:
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", IMPORT, str(project)]
    return subprocess.run(command, cwd=checkout, env=env, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.parametrize("ahead_seconds", [0, 3600], ids=["just now", "by a clock that goes ahead"])
def test_a_file_saved_again_within_the_second_counts_at_once(
    tmp_path: Path, checkout: Path, ahead_seconds: int
) -> None:
    moment = int(time.time()) + ahead_seconds
    for version in ("1", "2"):
        (tmp_path / "helping.py").write_text(f"VERSION = {version}\n")
        os.utime(tmp_path / "helping.py", (moment, moment))
        assert imported(tmp_path, checkout) == version


def test_a_file_saved_a_while_ago_is_compiled_once(tmp_path: Path, checkout: Path) -> None:
    (tmp_path / "helping.py").write_text("VERSION = 1\n")
    os.utime(tmp_path / "helping.py", (time.time() - 60, time.time() - 60))
    assert imported(tmp_path, checkout) == "1"
    assert list((tmp_path / "__pycache__").glob("helping.*.pyc"))
