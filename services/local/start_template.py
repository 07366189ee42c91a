"""The start template: a process that has imported what Prefect's server and the roles share, and forks them.

A start imports Prefect once instead of seven times, and imported modules are in memory once. Forks of the template
become children of the supervisor, which adopts orphans: each process ends, is waited for and is restarted as if the
supervisor had started it. Linux only; elsewhere, and when the template has ended, each is an interpreter of its own.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

import structlog

from config.logs import print_traceback
from config.settings import CHECKOUT, RoleName
from services.common.process_tree import die_with_parent, end_with_parent, show_as, unmap_code

log = structlog.get_logger()

ANSWER_SECONDS: Final = 60.0
"""Time limit for the template's responses: on a slow machine it imports for half a minute."""

REST_SECONDS: Final = 5.0
"""Time after the last request after which the template gives memory back."""

_FIRST: Final = ("prefect", "httpx", "uvicorn", "fastapi", "sqlalchemy.ext.asyncio", "prefect.client.orchestration")
"""Modules that Prefect's server and the roles share: the server is forked when these are imported."""

FOR_LOADING: Final = "sluice.loading.load"
"""Imported, too, if flows load files: it imports most of `sluice.loading`, and its libraries."""

_ROLE_START: Final = "services.cli.machine.role_start"

_LEFT_OUT: Final = ("services.local.", "services.cli.")


class AdoptedProcess:
    """A process that the start template has forked for this one; used like `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._descriptor = os.pidfd_open(pid)

    def poll(self) -> int | None:
        """Return its exit code, or minus the signal that ended it; None while it runs."""
        if self.returncode is None:
            with suppress(ChildProcessError):
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if not pid:
                    return None
                self._over(os.waitstatus_to_exitcode(status))
        if self.returncode is None:  # somebody else has reaped it: its exit code is unknown
            self._over(1)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """As `subprocess.Popen.wait`."""
        if self.returncode is None:
            select.select([self._descriptor], [], [], timeout)
        code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Does nothing when it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _over(self, code: int) -> None:
        self.returncode = code
        os.close(self._descriptor)


class StartTemplate:
    """The supervisor's handle; the template ends when the handle is closed or the supervisor ends."""

    def __init__(self, link: socket.socket, pid: int) -> None:
        self.pid = pid
        self._link = link
        self._descriptor = os.pidfd_open(pid)
        self._ended = False

    @classmethod
    def fork(cls, env: Mapping[str, str], *, libraries: Sequence[str] = ()) -> StartTemplate | None:
        """Fork the template, which imports with the environment ``env``, from which Prefect reads its settings.

        It also imports those of the ``libraries`` of flows that can be imported. The calling process must adopt
        orphans. None where forking is not safe or not supported.
        """
        if sys.platform != "linux" or not hasattr(os, "pidfd_open") or threading.active_count() > 1:
            return None
        ours, theirs = socket.socketpair()
        sys.stdout.flush()
        sys.stderr.flush()
        supervisor = os.getpid()
        gc.freeze()
        pid = os.fork()
        if pid == 0:
            ours.close()
            _serve(theirs, env, supervisor, libraries)
        theirs.close()
        ours.settimeout(ANSWER_SECONDS)
        return cls(ours, pid)

    def start(
        self, module: str, arguments: Sequence[str], *, env: Mapping[str, str], log_file: Path | None, cwd: Path | None
    ) -> AdoptedProcess | None:
        """Have a fork run ``python -m module arguments``; None if the template has ended or does not respond.

        The process is a session of its own and gets SIGTERM when this process ends. Its output goes to ``log_file``, or
        to this process's output.
        """
        if self._ended:
            return None
        request = {
            "module": module,
            "arguments": list(arguments),
            "env": dict(env),
            "log": str(log_file) if log_file else None,
            "cwd": str(cwd) if cwd else None,
        }
        try:
            self._link.sendall(json.dumps(request).encode() + b"\n")
            return AdoptedProcess(json.loads(self._link.recv(4096))["pid"])
        except (OSError, ValueError) as error:
            log.warning("the start template is gone, starting an interpreter instead", error=repr(error))
            self.close()  # else a late answer would be taken for the answer to the next request
            return None

    def close(self) -> None:
        """End the template at once; its forks continue."""
        if not self._ended:
            self._ended = True
            self._link.close()
            with suppress(ProcessLookupError, ChildProcessError):
                signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)
                os.waitpid(self.pid, 0)
            os.close(self._descriptor)


def _serve(link: socket.socket, env: Mapping[str, str], supervisor: int, libraries: Sequence[str]) -> NoReturn:
    """Import, and fork for every line received, until the supervisor has ended."""
    try:
        os.setsid()  # only the supervisor gets Ctrl-C of the terminal
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        die_with_parent()
        if os.getppid() == supervisor:
            _close_all_but(link.fileno())  # the lock on the home among them
            _replace_environment(env)
            gc.disable()  # garbage collection takes a sixth of the imports' time, and finds hardly any
            show_as("start template")
            _answer_all(link, supervisor, libraries)
    except BaseException as error:  # noqa: BLE001 - the end of the process is the report
        print_traceback(error)
    finally:
        os._exit(1)


def _answer_all(link: socket.socket, supervisor: int, libraries: Sequence[str]) -> None:
    """Fork a process for each request on the link until it closes; import ``libraries`` meanwhile, then rest."""
    imports = _imports(libraries)
    next(imports)
    received = b""
    busy = True
    while True:
        if busy and not select.select([link], [], [], 0)[0]:
            busy = next(imports, None) is not None
            continue
        if not select.select([link], [], [], REST_SECONDS)[0]:
            unmap_code()  # of libraries, which hardly ever runs here
        chunk = link.recv(1 << 16)
        if not chunk:
            return
        *lines, received = (received + chunk).split(b"\n")
        for line in lines:
            request = json.loads(line)
            if request["module"] == "services.cli":  # needs all modules; Prefect's server, slow to start, does not
                for _ in imports:
                    pass
                busy = False
            if _is_role(request):
                _prepare_role(request["env"])
            gc.freeze()  # garbage collection would write to every object, and so copy every page
            link.sendall(json.dumps({"pid": _fork(request, link, supervisor)}).encode() + b"\n")


def _is_role(request: Mapping[str, Any]) -> bool:
    return bool(request["module"] == "services.cli" and request["arguments"][0] == "run")


def _prepare_role(env: Mapping[str, str]) -> None:
    _replace_environment(env)
    importlib.import_module(_ROLE_START).prepare()
    gc.collect()  # or the forks would keep its garbage


def _imports(libraries: Sequence[str]) -> Iterator[str]:
    """Import in steps; the first has the modules that Prefect's server shares with the roles."""
    given = os.environ.get("PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED")
    os.environ["PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED"] = given or "false"  # as the process template does
    for name in _FIRST:
        importlib.import_module(name)
    if given is None:
        del os.environ["PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED"]
    yield _FIRST[-1]
    import services
    from services.executor.pool.process_template import import_all

    import_all()
    yield "services.executor"
    for module in pkgutil.walk_packages(services.__path__, "services."):
        if not f"{module.name}.".startswith(_LEFT_OUT):
            importlib.import_module(module.name)
            yield module.name
    importlib.import_module("services.cli")
    for name in libraries:
        yield name
        with suppress(Exception):  # the flow that needs it reports the failed import
            importlib.import_module(name)


def _fork(request: dict[str, Any], link: socket.socket, supervisor: int) -> int:
    """Return the pid of the process for the request: forked twice, so that it is the supervisor's child."""
    reading, writing = os.pipe()
    between = os.fork()
    if between == 0:
        link.close()
        os.close(reading)
        between = os.getpid()
        pid = os.fork()
        if pid:
            os.write(writing, str(pid).encode())
            os._exit(0)
        os.close(writing)
        _become(request, between, supervisor)
    os.close(writing)
    with os.fdopen(reading, "rb") as answers:
        pid = int(answers.read())
    os.waitpid(between, 0)  # from here on it is the supervisor's
    return pid


def _become(request: dict[str, Any], between: int, supervisor: int) -> NoReturn:
    """Become ``python -m module arguments``, once the process ``between`` has ended."""
    try:
        os.setsid()
        while os.getppid() == between:
            time.sleep(0.001)
        end_with_parent()
        if os.getppid() == supervisor:
            become_module(request)
    finally:
        os._exit(1)


def become_module(request: Mapping[str, Any]) -> NoReturn:
    """Become ``python -m module arguments`` with the request's log file, environment and working directory."""
    code = 1
    try:
        _redirect(request["log"])
        _replace_environment(request["env"])
        if request["cwd"]:
            os.chdir(request["cwd"])
        script = os.path.dirname(getattr(sys.modules["__main__"], "__file__", None) or "")  # noqa: PTH120 - text
        root = str(CHECKOUT)
        sys.path[:] = [root, *(entry for entry in sys.path if entry not in {root, script, ""})]
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        gc.enable()
        sys.argv[1:] = request["arguments"]
        code = (
            _run_role(request["arguments"][1]) if _is_role(request) else _run(request["module"], request["arguments"])
        )
    except BaseException as error:  # noqa: BLE001 - the end of the process is the report
        print_traceback(error)
    finally:
        with suppress(BaseException):
            threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - as the interpreter's end does
            atexit._run_exitfuncs()  # noqa: SLF001 - likewise
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _run_role(role: RoleName) -> int:
    show_as(role)
    return int(importlib.import_module(_ROLE_START).become_role(role))


def _run(module: str, arguments: Sequence[str]) -> int:
    show_as(arguments[0] if module == "services.cli" else module.rpartition(".")[2].replace("_", " "))
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _redirect(log_file: str | None) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    if log_file is not None:
        Path(log_file).parent.mkdir(parents=True, exist_ok=True)
        output = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)


def _replace_environment(env: Mapping[str, str]) -> None:
    for name in set(os.environ) - set(env):
        del os.environ[name]
    os.environ.update(env)


def _close_all_but(kept: int) -> None:
    os.closerange(3, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))
