"""Child servers: readiness, their end, and the ports they are given."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from redis.exceptions import RedisError

from config.settings import RedisSettings
from events.errors import ConfigError, TransientError
from services.local.embedded_servers import Server, claim_port, kept_by_prefect, start_valkey
from services.store.connection import connect, connect_sync
from tests.support.waiting import wait_until


def test_a_machine_for_which_no_valkey_is_packed_is_told_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.local.embedded_servers.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"no Valkey here to start: set SLUICE_REDIS_URL"):
        start_valkey(tmp_path, 0, RedisSettings(), log_file=tmp_path / "log")


def child(tmp_path: Path, code: str) -> Server:
    return Server("a child", [sys.executable, "-c", code], log_file=tmp_path / "log", env=os.environ)


def test_a_taken_port_is_an_error_that_names_port_and_setting() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} is taken.*SLUICE_PORTS__REDIS"):
            claim_port(port, "SLUICE_PORTS__REDIS")


def test_port_zero_is_any_free_port() -> None:
    assert claim_port(0, "x") > 0


def test_a_server_that_dies_while_starting_tells_why(tmp_path: Path) -> None:
    server = child(tmp_path, "print('no such database'); raise SystemExit(3)")
    with pytest.raises(TransientError, match=r"(?s)ended with code 3.*no such database"):
        server.wait_ready(lambda: False, within_seconds=10)


def test_a_server_that_is_late_is_given_up(tmp_path: Path) -> None:
    server = child(tmp_path, "import time; time.sleep(60)")
    with pytest.raises(TransientError, match="not ready after"):
        server.wait_ready(lambda: False, within_seconds=0.2)
    server.stop()
    assert server.process.poll() == -signal.SIGTERM


def test_a_server_that_ignores_sigterm_is_killed_with_its_children(tmp_path: Path) -> None:
    server = child(
        tmp_path,
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "inner = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(inner.pid, flush=True)\n"
        "time.sleep(60)",
    )
    inner = psutil.Process(int(wait_until(lambda: (tmp_path / "log").read_text().strip())))
    server.stop(within_seconds=0.2)
    assert server.process.poll() == -signal.SIGKILL
    wait_until(lambda: not inner.is_running() or inner.status() == psutil.STATUS_ZOMBIE)


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
def test_a_server_ends_when_its_parent_is_killed(tmp_path: Path, checkout: Path) -> None:
    code = (
        "import os, sys, time\nfrom pathlib import Path\nfrom services.local.embedded_servers import Server\n"
        "s = Server('x', [sys.executable, '-c', 'import time; time.sleep(60)'], log_file=None, env=os.environ)\n"
        "print(s.process.pid, flush=True)\ntime.sleep(60)"
    )
    parent = Server("parent", [sys.executable, "-c", code], log_file=tmp_path / "pid", env=os.environ, cwd=checkout)
    inner = psutil.Process(int(wait_until(lambda: (tmp_path / "pid").read_text().strip())))
    parent.process.kill()
    parent.process.wait()
    wait_until(lambda: not inner.is_running() or inner.status() == psutil.STATUS_ZOMBIE)


async def test_valkey_keeps_what_it_was_told_over_a_kill(tmp_path: Path) -> None:
    settings = RedisSettings(fsync="always")
    server, url = start_valkey(tmp_path / "data", claim_port(0, "x"), settings, log_file=tmp_path / "log")
    client = connect(url, settings)
    await client.set("test:kept", "yes")
    await client.aclose()
    server.kill()
    server.process.wait()
    server, url = start_valkey(tmp_path / "data", claim_port(0, "x"), settings, log_file=tmp_path / "log")
    client = connect(url, settings)
    try:
        assert await client.get("test:kept") == b"yes"
    finally:
        await client.aclose()
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < 5


@pytest.mark.parametrize("username", [None, "ada"])
def test_valkey_wants_its_password_of_everybody_and_shows_it_nowhere(tmp_path: Path, username: str | None) -> None:
    settings = RedisSettings(username=username, password='s3cret "x/@ y')
    server, url = start_valkey(tmp_path / "data", claim_port(0, "x"), settings, log_file=tmp_path / "log")
    port = urlsplit(url).port
    try:
        with connect_sync(url, RedisSettings()) as client:
            assert client.ping()
        with connect_sync(f"redis://127.0.0.1:{port}/0", settings) as client:
            assert client.ping()
        with connect_sync(f"redis://127.0.0.1:{port}/0", RedisSettings()) as client, pytest.raises(RedisError):
            client.ping()
        assert "s3cret" not in " ".join(psutil.Process(server.process.pid).cmdline())
    finally:
        server.stop()
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and b"s3cret" in file.read_bytes()]


def test_prefect_is_told_how_long_to_keep_runs_and_keeps_them_unless_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import Settings as PrefectSettings

    assert kept_by_prefect(None) == {}
    for name, value in kept_by_prefect(30).items():
        monkeypatch.setenv(name, value)
    vacuum = PrefectSettings().server.services.db_vacuum
    assert vacuum.retention_period == timedelta(days=30)
    assert vacuum.enabled_vacuum_types >= {"events", "flow_runs"}


WITHOUT_WRITING = """
import pathlib, prefect, subprocess, sys, urllib.request
server = pathlib.Path(prefect.__file__).parent / "server"
subprocess.run(["mount", "--bind", server, server], check=True)
subprocess.run(["mount", "-o", "remount,bind,ro", server], check=True)
for unpacked in server.glob("ui*_build"):  # by another start
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", unpacked], check=True)
from services.local.embedded_servers import claim_port, start_prefect
home = pathlib.Path(sys.argv[1])
started, url = start_prefect(home, claim_port(0, ""), log_file=home / "log")
try:
    print(urllib.request.urlopen(url.removesuffix("/api") + "/v2/").read().decode())
finally:
    started.stop()
"""


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="it needs mounts of its own")
def test_prefect_has_its_ui_where_it_may_not_write_beside_its_code(checkout: Path, tmp_path: Path) -> None:
    """As in a read-only container, or in an environment that belongs to root."""
    command = ["unshare", "--mount", sys.executable, "-c", WITHOUT_WRITING, str(tmp_path)]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False, timeout=200)
    assert "<html" in done.stdout, done.stderr
