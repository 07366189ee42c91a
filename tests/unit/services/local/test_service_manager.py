"""systemd is told what it wants to know, through a socket of the test's own; a closed terminal is a way to stop."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from config.settings import load_settings
from services.local.supervisor import Supervisor
from services.local.systemd.service_manager import ServiceManager


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
