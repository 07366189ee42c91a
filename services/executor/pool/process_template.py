"""The process template: an idle copy of the role's process, made before it had threads or connections.

It forks the fork servers. So the role's process, the template, the fork servers and their slots share the memory of
imported modules, and a fork server need not import Prefect again. Linux only; elsewhere, and when the template has
ended, fork servers are fresh interpreters.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Final, NoReturn, cast

import structlog

from config.logs import print_traceback
from services.common.process_tree import show_as
from services.common.project_imports import CHECKOUT
from services.executor.messages import Assignment, ForkedPid
from services.executor.pipes import PipeLines, from_line, to_line, write
from services.executor.process.process_setup import quiet_arrow

log = structlog.get_logger()

ANSWER_SECONDS: Final = 5.0
VERSION_CHECK: Final = "PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED"
PRELOADED: Final = (
    "services.executor.executor",
    "services.executor.finalizing.finalizer",
    "services.executor.flow_files.import_probe",
    "services.executor.pool.fork_server",
    "services.executor.pool.slot_worker",
    "services.executor.process.flow_run_process",
    "services.executor.run_orders",
    # What `services.prefect_api.compat` imports when it is called.
    "prefect.runner._cancel_finalizer",
    "prefect.runner._hook_runner",
    "prefect.runner._state_proposer",
    # What nearly every flow file imports, or Prefect when it meets the first flow.
    "pydantic.v1",
    "prefect.artifacts",
    "prefect.futures",
    "prefect.task_runners",
    "sluice.files",
    "sluice.run_names",
    "sluice.wait",
)
"""Modules that are imported once, before the fork. Any other module is imported, and held in memory, by each slot and
run."""


class ForkedProcess:
    """The role's handle of a process that the process template has forked; the role's process is not its parent."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._descriptor = os.pidfd_open(pid)
        self._over = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._descriptor, self._ended)

    async def wait(self) -> int | None:
        """Wait for the process to end; None, because only its parent gets the exit code."""
        await self._over.wait()
        return None

    def kill(self) -> None:
        """Send SIGKILL; raises `ProcessLookupError` when the process has ended."""
        if self._over.is_set():
            raise ProcessLookupError
        signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    def _ended(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)
        self._over.set()


class ProcessTemplate:
    """The role's handle; the process template ends when the handle is closed or the role's process ends."""

    def __init__(self, link: socket.socket, pid: int) -> None:
        self._link = link
        self._pid = pid
        self._ended = False

    @classmethod
    def fork(cls) -> ProcessTemplate | None:
        """Fork the template, before there is an event loop. None where forking is not safe or not supported."""
        if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
            return None
        import_all()
        if threading.active_count() > 1:
            return None
        gc.collect()
        gc.freeze()  # garbage collection would write to every object, and so copy every page
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            ours.close()
            _serve(theirs)
        theirs.close()
        ours.setblocking(False)
        return cls(ours, pid)

    async def start(self, assignment: Assignment) -> ForkedProcess | None:
        """Fork a fork server with this assignment; None when the template does not respond and is killed."""
        if self._ended:
            return None
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await loop.sock_sendall(self._link, to_line(assignment))
                answer = cast(ForkedPid, from_line(await loop.sock_recv(self._link, 4096)))
            return ForkedProcess(answer.pid)
        except (OSError, ValueError, KeyError) as error:  # TimeoutError is an OSError
            log.warning("the process template is gone, starting an interpreter instead", error=repr(error))
            self._end(signal.SIGKILL)  # else a late response would be taken for the response to the next request
            return None

    def close(self) -> None:
        """End the template."""
        self._end(signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        if self._ended:
            return
        self._ended = True
        self._link.close()
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self._pid, number)
            os.waitpid(self._pid, 0)


def import_all() -> None:
    """Import everything that the role's process and the fork server need; the start template has done so already."""
    import encodings.idna  # noqa: F401 - what the first connection of every fork would import

    given = os.environ.get(VERSION_CHECK)
    os.environ[VERSION_CHECK] = given or "false"  # Prefect reads its settings on import
    quiet_arrow(os.environ)
    for name in PRELOADED:
        importlib.import_module(name)
    if given is None:
        del os.environ[VERSION_CHECK]


def _serve(link: socket.socket) -> NoReturn:
    """Fork a fork server for every line received, until the role's process has ended."""
    show_as("process template")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no process waits for the children
    lines = PipeLines(link.fileno())
    while not lines.ended:
        for assignment in lines.read():
            pid = os.fork()
            if pid == 0:
                link.close()
                _be_fork_server(cast(Assignment, assignment))
            write(link.fileno(), ForkedPid(pid))
    os._exit(0)


def _be_fork_server(assignment: Assignment) -> NoReturn:
    """Become a fork server in a fork of the process template; never returns.

    The working directory and `sys.path` are those of a process started for it, whatever the role has changed since.
    """
    from services.executor.pool.fork_server import serve

    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with Path(os.devnull).open("rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        script = os.path.dirname(getattr(sys.modules["__main__"], "__file__", None) or "")  # noqa: PTH120 - text
        sys.path[:] = [CHECKOUT, *(entry for entry in sys.path if entry not in {CHECKOUT, script, ""})]
        os.chdir(CHECKOUT)
        serve(assignment)
        code = 0
    except BaseException as error:  # noqa: BLE001 - the end of the process is the report
        print_traceback(error)
    finally:
        os._exit(code)
