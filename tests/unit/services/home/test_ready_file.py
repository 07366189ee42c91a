"""The health check of a container: what a role said last, for the price of starting Python."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from config.settings import CHECKOUT
from services.home import ready_file


def ask(file: Path | None, *words: str) -> tuple[int, str]:
    environment = {"SLUICE_READY_FILE": str(file)} if file else {}
    command = [sys.executable, "-m", "services.home.ready_file", *words]
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.strip()


@pytest.mark.parametrize(
    ("problem", "age", "ready", "alive"),
    [
        (None, 0, None, None),
        ("not ready: intake", 0, "not ready: intake", None),
        (None, 60, "the role has been silent for 60 s", "the role has been silent for 60 s"),
    ],
)
def test_a_role_is_ready_and_alive_by_what_it_wrote_last(
    tmp_path: Path, problem: str | None, age: int, ready: str | None, alive: str | None
) -> None:
    file = tmp_path / "ready"
    ready_file.write(file, problem)
    os.utime(file, (time.time() - age, time.time() - age))
    assert ready_file.problem_in(file) == ready
    assert ready_file.problem_in(file, alive=True) == alive
    assert list(tmp_path.iterdir()) == [file]


def test_the_exit_code_says_it(tmp_path: Path) -> None:
    file = tmp_path / "ready"
    assert ask(file) == (1, f"no role reports here: {file} is not there")
    ready_file.write(file, None)
    assert ask(file) == (0, "yes")
    assert ask(None)[0] == 2
    assert ask(file, "nonsense")[0] == 2


def test_it_imports_nothing_that_takes_time() -> None:
    """A container is asked every ten seconds; `sluice status` takes half a second of a core."""
    code = "import sys, services.home.ready_file as one; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    for heavy in ("typer", "pydantic", "redis", "prefect", "structlog", "asyncio", "json"):
        assert heavy not in done.stdout.split()
