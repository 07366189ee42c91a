"""systemd is told what it wants to know, through a socket of the test's own; a closed terminal is a way to stop."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from config.settings import CHECKOUT, load_settings
from services.local.supervisor import Supervisor
from services.local.systemd.service_manager import ServiceManager
from services.local.systemd.unit import FIRST_LINE

SYSTEMD_ANALYZE = Path("/usr/bin/systemd-analyze")


@pytest.fixture
def manager(tmp_path: Path):
    """The socket of a service manager that has started this process."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(10)
        yield listening


def test_it_is_told_of_ready_life_and_end_and_nobody_else_inherits_its_socket(manager: socket.socket) -> None:
    environ = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}
    told = ServiceManager(environ)
    assert environ == {}
    told.ready()
    told.beat()
    told.beat()  # too early for another one
    told.stopping()
    assert [manager.recv(100).decode().partition("\n")[0] for _ in range(3)] == ["READY=1", "WATCHDOG=1", "STOPPING=1"]


def test_without_a_service_manager_or_with_one_that_is_gone_nothing_happens(tmp_path: Path) -> None:
    for environ in ({}, {"NOTIFY_SOCKET": str(tmp_path / "none"), "WATCHDOG_USEC": "1"}):
        told = ServiceManager(environ)
        told.ready()
        told.beat()


def test_an_abstract_socket_is_reached_and_the_watchdog_of_another_process_is_not_ours() -> None:
    name = f"sluice-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        listening.settimeout(10)
        told = ServiceManager({"NOTIFY_SOCKET": f"@{name}", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"})
        told.beat()
        told.status("starting")
        assert listening.recv(100) == b"STATUS=starting"


def test_a_closed_terminal_stops_as_ctrl_c_does_and_is_told_twice_without_harm(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / ".sluice"))
    supervisor = Supervisor(load_settings(), say=print, warn=print)
    killed = []
    monkeypatch.setattr(supervisor, "_children", [])
    begun_with = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup, too
    before = signal.getsignal(signal.SIGHUP)
    with supervisor._signals():
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGHUP)

        class Watched:
            class server:  # noqa: N801
                @staticmethod
                def kill() -> None:
                    killed.append(1)

        supervisor._children.append(Watched())
        signal.raise_signal(signal.SIGHUP)
        assert not killed
        signal.raise_signal(signal.SIGTERM)
        assert killed
    assert signal.getsignal(signal.SIGHUP) == before
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        with supervisor._signals():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, begun_with)


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
