"""`sluice env` tells its owner, and nobody else, how the installation is reached."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.home.home import Home, RunningInstallation

NOBODY = 65534

AUTH = "sluice:it's $secret"
RUNNING = RunningInstallation(
    pid=os.getpid(),
    redis_url="redis://:pw%2F1@127.0.0.1:6390/0",
    prefect_api_url="http://127.0.0.1:4200/api",
    api_url="http://127.0.0.1:4280",
    prefect_auth_string=AUTH,
    api_token="t0ken",
)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    home = Home(tmp_path / "home")
    with home.locked():
        home.write_running(RUNNING)
        yield home.path


def sluice(checkout: Path, home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", "PREFECT_"))}
    return subprocess.run(
        [sys.executable, "-m", "services.cli", *arguments],
        cwd=checkout,
        env={**kept, "SLUICE_HOME": str(home), **more},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_it_is_one_json_object(checkout: Path, home: Path) -> None:
    assert json.loads(sluice(checkout, home, "env", "--json").stdout) == {
        "PREFECT_API_URL": "http://127.0.0.1:4200/api",
        "PREFECT_API_AUTH_STRING": AUTH,
        "SLUICE_REDIS_URL": "redis://:pw%2F1@127.0.0.1:6390/0",
        "SLUICE_API_URL": "http://127.0.0.1:4280",
        "SLUICE_API_TOKEN": "t0ken",
    }


def test_a_shell_can_evaluate_it(checkout: Path, home: Path) -> None:
    said = sluice(checkout, home, "env").stdout
    shown = subprocess.run(
        [
            "sh",
            "-c",
            'eval "$1"; printf "%s\\n" "$PREFECT_API_AUTH_STRING" "$SLUICE_API_TOKEN" "$REDISCLI_AUTH"',
            "sh",
            said,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.splitlines() == [AUTH, "t0ken", "pw/1"]


def test_what_there_is_not_is_unset(checkout: Path, tmp_path: Path) -> None:
    home = Home(tmp_path / "open")
    with home.locked():
        home.write_running(
            RunningInstallation(os.getpid(), "redis://127.0.0.1:1/0", "http://127.0.0.1:2/api", "http://127.0.0.1:3")
        )
        lines = sluice(checkout, home.path, "env").stdout.splitlines()
    assert "unset PREFECT_API_AUTH_STRING" in lines
    assert "unset REDISCLI_AUTH" in lines
    assert f"export SLUICE_REDIS_URL={shlex.quote('redis://127.0.0.1:1/0')}" in lines


def test_where_nothing_runs_it_says_so(checkout: Path, tmp_path: Path) -> None:
    answer = sluice(checkout, tmp_path / "none", "env")
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "start `sluice up`" in answer.stderr
    assert not (tmp_path / "none").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a home to another user")
def test_it_refuses_a_home_of_another_user_with_a_sentence(checkout: Path, home: Path) -> None:
    os.chown(home, NOBODY, NOBODY)
    try:
        answer = sluice(checkout, home, "env", "--json")
    finally:
        os.chown(home, os.geteuid(), os.getegid())
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "only its owner may read how its servers are reached" in answer.stderr


def test_status_shows_no_password(checkout: Path, home: Path) -> None:
    said = sluice(checkout, home, "status", "--json")
    text = sluice(checkout, home, "status")
    for secret in ("pw%2F1", "pw/1", AUTH, "t0ken"):
        assert secret not in said.stdout + said.stderr + text.stdout + text.stderr
    assert json.loads(said.stdout)["redis"] == "redis://:***@127.0.0.1:6390/0"


@pytest.mark.parametrize(
    ("more", "why"),
    [({"SLUICE_ENV": "production"}, "SLUICE_ENV is production"), ({"SLUICE_API__HOST": "0.0.0.0"}, "SLUICE_API__HOST")],
)
def test_an_open_installation_is_for_development_on_loopback_only(
    checkout: Path, tmp_path: Path, more: dict[str, str], why: str
) -> None:
    answer = sluice(checkout, tmp_path / "home", "up", "--open", **more)
    assert answer.returncode == 2
    assert why in answer.stderr
    assert not (tmp_path / "home").exists()
