"""Processes that do ``python -m MODULE``, as forks of one that has imported Prefect and Sluice.

To import them takes a fresh interpreter a second of processor time or more, and the tests start hundreds. What is
started here has its own session, environment, folder and output, and ends when the tests do. A test of what the
interpreter itself does (its start, its import path, its standard input) starts one of its own.

``python -m tests.support.warm DESCRIPTOR`` is the process that forks: each request on the socket is JSON with three
descriptors, for standard output, standard error and the exit code; each answer is the pid of the fork.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, NoReturn

from config.settings import CHECKOUT
from services.common.process_tree import die_with_parent, end_with_parent
from services.local import start_template

_ONE_AT_A_TIME = threading.Lock()


class ModuleProcess:
    """A fork of the warm interpreter; it is used as `subprocess.Popen` is."""

    def __init__(self, pid: int, ending: int, stdout: IO[str] | None) -> None:
        self.pid = pid
        self.stdout = stdout
        self.returncode: int | None = None
        self._ending = ending

    def poll(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """As `subprocess.Popen.wait`."""
        if self.returncode is None:
            with selectors.DefaultSelector() as ready:
                ready.register(self._ending, selectors.EVENT_READ)
                if not ready.select(timeout):
                    raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            code = os.read(self._ending, 16)
            os.close(self._ending)
            self.returncode = int(code or -signal.SIGKILL)  # the warm interpreter was killed, and this one with it
        return self.returncode

    async def ended(self) -> int:
        """`wait` for code on an event loop."""
        return await asyncio.to_thread(self.wait)

    def send_signal(self, number: int) -> None:
        """Does nothing when it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class WarmInterpreter:
    """The handle of the process that forks; it ends with the process that made it."""

    def __init__(self) -> None:
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.support.warm", str(theirs.fileno())]
            self._process = subprocess.Popen(command, cwd=CHECKOUT, pass_fds=[theirs.fileno()], start_new_session=True)

    def close(self) -> None:
        """End it; what it has forked gets SIGTERM."""
        self._link.close()
        self._process.wait()

    def start(
        self, module: str, arguments: Sequence[str], *, env: Mapping[str, str], log_file: Path | None, cwd: Path | None
    ) -> ModuleProcess:
        """As `StartTemplate.start`: for a `Server`, whose output goes to ``log_file``."""
        if log_file is None:
            return start_module(module, *arguments, env=env, cwd=cwd or CHECKOUT)
        log_file.parent.mkdir(parents=True, exist_ok=True)
        with log_file.open("ab") as output:
            return start_module(module, *arguments, env=env, cwd=cwd or CHECKOUT, stdout=output, stderr=output)

    def fork(
        self, module: str, arguments: Sequence[str], *, env: Mapping[str, str], cwd: Path, stdout: int, stderr: int
    ) -> tuple[int, int]:
        """The pid, and the descriptor from which the exit code can be read when it has ended."""
        request = {"module": module, "arguments": list(arguments), "env": dict(env), "cwd": str(cwd), "log": None}
        reading, writing = os.pipe()
        with _ONE_AT_A_TIME:
            socket.send_fds(self._link, [json.dumps(request).encode()], [stdout, stderr, writing])
            os.close(writing)
            return int(self._link.recv(16)), reading


class FreshProcess(subprocess.Popen[str]):
    """What takes the place of a fork where there is no warm interpreter."""

    async def ended(self) -> int:
        """`wait` for code on an event loop."""
        return await asyncio.to_thread(self.wait)


@cache
def interpreter() -> WarmInterpreter | None:
    """The one of this process; the first call starts it. None where forks of what has imported much are not safe."""
    if sys.platform != "linux":
        return None
    made = WarmInterpreter()
    atexit.register(made.close)
    return made


def start_module(
    module: str,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    cwd: Path = CHECKOUT,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
) -> ModuleProcess | FreshProcess:
    """``python -m module arguments``; the outputs are what `subprocess.Popen` takes, ``PIPE`` for ``stdout`` alone.

    It has no standard input. Its environment is this process's own without ``env``, its modules come from this checkout
    in every folder.
    """
    warm = interpreter()
    if warm is None:
        command = [sys.executable, "-m", module, *arguments]
        return FreshProcess(
            command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, encoding="utf-8"
        )
    heard = None
    with _descriptor(stderr, sys.__stderr__) as error:
        if stdout == subprocess.PIPE:
            reading, writing = os.pipe()
            heard = os.fdopen(reading, encoding="utf-8")
            stdout = os.fdopen(writing, "wb")
        with _descriptor(stdout, sys.__stdout__) as output:
            started = warm.fork(
                module, arguments, env=os.environ if env is None else env, cwd=cwd, stdout=output, stderr=error
            )
        if heard is not None:
            stdout.close()
    return ModuleProcess(*started, heard)


def run_module(
    module: str, *arguments: str, env: Mapping[str, str] | None = None, cwd: Path = CHECKOUT, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """``python -m module arguments`` to its end, with what it printed."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as out, tempfile.TemporaryFile("w+", encoding="utf-8") as err:
        process = start_module(module, *arguments, env=env, cwd=cwd, stdout=out, stderr=err)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess([module, *arguments], code, out.read(), err.read())


@contextmanager
def _descriptor(given: int | IO[Any] | None, ours: Any) -> Iterator[int]:
    if given == subprocess.DEVNULL:
        with Path(os.devnull).open("wb") as nothing:
            yield nothing.fileno()
    elif given is None:
        yield ours.fileno()
    else:
        yield given if isinstance(given, int) else given.fileno()


def _serve(link: socket.socket) -> None:
    """Import everything, then fork for each request, until there can be none any more."""
    die_with_parent()
    for _ in start_template._imports(["prefect.runtime", "prefect.cache_policies"]):
        pass
    settings = _prefect_settings(os.environ)
    gc.freeze()
    with selectors.DefaultSelector() as events:
        events.register(link, selectors.EVENT_READ)
        while True:
            for key, _ in events.select():
                if key.data is not None:
                    events.unregister(key.fileobj)
                    _collect(*key.data)
                    continue
                request, descriptors, _, _ = socket.recv_fds(link, 1 << 20, 3)
                if not request:
                    return
                pid = os.fork()
                if pid == 0:
                    _become(json.loads(request), descriptors, settings)
                *outputs, ending = descriptors
                for descriptor in outputs:
                    os.close(descriptor)
                process = os.pidfd_open(pid)
                events.register(process, selectors.EVENT_READ, (pid, process, ending))
                link.send(str(pid).encode())


def _collect(pid: int, process: int, ending: int) -> None:
    _, status = os.waitpid(pid, 0)
    with suppress(BrokenPipeError):  # nobody asks any more
        os.write(ending, str(os.waitstatus_to_exitcode(status)).encode())
    os.close(ending)
    os.close(process)


def _become(request: dict[str, Any], descriptors: list[int], settings: Mapping[str, str]) -> NoReturn:
    output, error, _ = descriptors
    os.dup2(output, 1)
    os.dup2(error, 2)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.setsid()
    end_with_parent()
    if _prefect_settings(request["env"]) != settings:
        start_template._replace_environment(request["env"])
        from prefect.context import refresh_global_settings_context

        refresh_global_settings_context()
    start_template.become_module(request)


def _prefect_settings(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith("PREFECT_")}


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _serve(socket.socket(fileno=int(sys.argv[1])))
