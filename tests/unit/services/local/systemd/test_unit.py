"""The unit that `sluice service install` writes is one that systemd takes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from config.settings import CHECKOUT
from services.local.systemd.unit import FIRST_LINE

SYSTEMD_ANALYZE = Path("/usr/bin/systemd-analyze")


@pytest.fixture
def manager(tmp_path: Path):
    """The socket of a service manager that has started this process."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(10)
        yield listening


def complaints(unit: Path, manager: str, *, runtime: Path) -> list[str]:
    """What systemd says of a unit, and not of others on this machine; nothing where it is not installed."""
    if not SYSTEMD_ANALYZE.exists():
        return []
    done = subprocess.run(
        [SYSTEMD_ANALYZE, "verify", manager, "--man=no", str(unit)],
        env={**os.environ, "XDG_RUNTIME_DIR": str(runtime), "SYSTEMD_LOG_LEVEL": "warning"},
        capture_output=True,
        text=True,
        check=False,
    )
    return [line for line in done.stderr.splitlines() if unit.name in line]


def install(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLUICE_", "PREFECT_", "XDG_"))}
    folder = tmp_path / "Aufträge 100% $HOME"
    folder.mkdir(exist_ok=True)
    (folder / "sluice.yaml").write_text("name: orders\n", encoding="utf-8")
    (folder / ".env").write_text("SLUICE_EXECUTOR__STOP_SECONDS=60\n", encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "services.cli", "service", "install", *words],
        cwd=folder,
        env={**kept, "HOME": str(tmp_path), "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_unit_is_one_that_systemd_takes_and_no_other_file_is_overwritten(tmp_path: Path) -> None:
    done = install(tmp_path, "--user")
    assert done.returncode == 0, done.stderr
    path = tmp_path / ".config" / "systemd" / "user" / "sluice-orders.service"
    assert done.stdout.strip() == str(path)
    assert "systemctl --user daemon-reload && systemctl --user enable --now sluice-orders.service" in done.stderr
    text = path.read_text(encoding="utf-8")
    folder = str(tmp_path / "Aufträge 100%% $HOME")
    assert f"WorkingDirectory={folder}\n" in text
    assert f'Environment="SLUICE_HOME={folder}/.sluice"' in text
    for promise in (
        "Type=notify",
        "WatchdogSec=60s",
        "KillMode=mixed",
        "RestartPreventExitStatus=2",
        "TimeoutStopSec=90s",
    ):
        assert promise in text
    assert complaints(path, "--user", runtime=tmp_path) == []
    assert install(tmp_path, "--user").returncode == 0
    path.write_text("[Service]\n")
    refused = install(tmp_path, "--user")
    assert refused.returncode == 2
    assert f"{path} is there and was not written by" in refused.stderr
    printed = install(tmp_path, "--print")
    assert printed.stdout.startswith(FIRST_LINE)
    assert f"User={path.owner()}" in printed.stdout
    system = tmp_path / "sluice-orders.service"
    system.write_text(printed.stdout, encoding="utf-8")
    assert complaints(system, "--system", runtime=tmp_path) == []
    system.write_text(printed.stdout.replace("WatchdogSec", "WatchdogSeconds"), encoding="utf-8")
    assert complaints(system, "--system", runtime=tmp_path) or not SYSTEMD_ANALYZE.exists()
