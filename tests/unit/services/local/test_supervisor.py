"""`sluice up` refuses to start on what it cannot use, before it starts anything."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from events.errors import TransientError
from services.local.starting import deploy_process


def up(checkout: Path, home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", "PREFECT_"))}
    ports = {"SLUICE_PORTS__PREFECT": "0", "SLUICE_PORTS__REDIS": "0", "SLUICE_PORTS__API": "0"}
    return subprocess.run(
        [sys.executable, "-m", "services.cli", "up", "--home", str(home)],
        cwd=checkout,
        env={**kept, **ports, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_taken_port_stops_the_start_with_exit_2_naming_port_and_setting(checkout: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        answer = up(checkout, tmp_path / "home", SLUICE_PORTS__PREFECT=str(port))
    assert answer.returncode == 2, answer.stderr
    assert f"port {port} is taken" in answer.stderr
    assert "SLUICE_PORTS__PREFECT" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_every_wrong_setting_is_named_at_once(checkout: Path, tmp_path: Path) -> None:
    answer = up(checkout, tmp_path, SLUICE_EXECUTOR__SLOTS="many", SLUICE_PROTS__API="1", SLUICE_ENV="prod")
    assert answer.returncode == 2, answer.stderr
    for name in ("SLUICE_EXECUTOR__SLOTS", "SLUICE_PROTS__API", "SLUICE_ENV"):
        assert name in answer.stderr
    assert "Traceback" not in answer.stderr


def test_every_wrong_rule_is_named_at_once_with_its_line(checkout: Path, tmp_path: Path) -> None:
    config = tmp_path / "sluice.yaml"
    config.write_text(
        "rules:\n  - name: a\n    on: x\n    rnu: y/z\n  - name: b\n    on: x\n    when: '1 +'\n    run: y/z\n"
    )
    answer = up(checkout, tmp_path / "home", SLUICE_CONFIG=str(config))
    assert answer.returncode == 2, answer.stderr
    assert "sluice.yaml:4" in answer.stderr
    assert "sluice.yaml:7" in answer.stderr
    assert not (tmp_path / "home" / "valkey").exists()


def test_a_port_or_home_that_is_no_use_leaves_nothing_running(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    answer = up(checkout, tmp_path / "file")
    assert answer.returncode == 2, answer.stderr
    assert "SLUICE_HOME" in answer.stderr


def test_a_server_that_is_named_and_does_not_answer_is_an_error_that_names_the_variable(
    checkout: Path, tmp_path: Path
) -> None:
    """Left over in the shell from looking at the last start: nobody would find out why nothing is started."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        answer = up(
            checkout,
            tmp_path / "home",
            PREFECT_API_URL=f"http://ada:pw123@127.0.0.1:{port}/api",
            SLUICE_REDIS_URL=f"redis://:pw123@127.0.0.1:{port}/0",
        )
    assert answer.returncode == 2, answer.stderr
    assert (
        f"PREFECT_API_URL is set, to http://***@127.0.0.1:{port}/api, so no Prefect server is started" in answer.stderr
    )
    assert "SLUICE_REDIS_URL is set, to redis://:***@127.0.0.1:" in answer.stderr
    assert "Unset PREFECT_API_URL" in answer.stderr
    assert "pw123" not in answer.stderr
    assert not (tmp_path / "home" / "prefect").exists()


def test_a_deploy_that_does_not_end_is_a_sentence_and_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = (sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)")
    monkeypatch.setattr(deploy_process, "PYTHON_MODULE", hanging)
    monkeypatch.setattr(deploy_process, "DEPLOY_SECONDS", 3.0)
    log_file = tmp_path / "deploy.log"
    deploying = deploy_process.DeployProcess(os.environ, log_file=log_file)
    with pytest.raises(TransientError, match=r"not registered within 3 s.*`sluice deploy`"):
        deploying.finish(say=print)
    assert not psutil.pid_exists(int(log_file.read_text()))
