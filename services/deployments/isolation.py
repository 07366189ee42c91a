"""Imports a user's files in forks of this process, without Sluice's own packages on the import path."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from services.common.project_imports import enter_project, leave_checkout

IMPORT_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.2


def in_project(root: Path, works: Iterable[Callable[[], Any]]) -> Iterator[Any]:
    """Yield what each of ``works`` returns, which JSON must hold, in order; None where its process ended or was late.

    Each has a process of its own and `IMPORT_SECONDS`; as many run at a time as there are processors. The working
    directory is ``root``. Imports resolve against ``root``, ``root/src`` and the environment, in that order, also those
    of `config`, `events`, `flows` and `services`. What is printed goes to standard error.
    """
    running: deque[_Importer] = deque()
    try:
        for work in works:
            running.append(_Importer(root, work))
            if len(running) >= (os.cpu_count() or 1):
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for one in running:
            one.end()


class _Importer:
    """A process that imports."""

    def __init__(self, root: Path, work: Callable[[], Any]) -> None:
        self._deadline = time.monotonic() + IMPORT_SECONDS
        self._read, write = os.pipe()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads: it touches none of theirs
            self._pid = os.fork()
        if self._pid == 0:
            os.close(self._read)
            _be_importer(root, work, write)
        os.close(write)

    def result(self) -> Any:
        """Wait for what it returns, and end it."""
        try:
            received = _received(self._read, self._deadline)
        finally:
            self.end()
        try:
            return json.loads(received)
        except ValueError:
            return None

    def end(self) -> None:
        """Kill the process, whatever it does."""
        os.close(self._read)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def _be_importer(root: Path, work: Callable[[], Any], write: int) -> None:
    """Run ``work`` in a fork, write its result as JSON, and exit.

    Standard output goes to standard error, because an imported flow file may print.
    """
    try:
        os.dup2(2, 1)
        leave_checkout()
        enter_project(root)
        answer = json.dumps(work(), default=str).encode() + b"\n"
        with os.fdopen(write, "wb") as out:
            out.write(answer)
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        os._exit(0)


def _received(read: int, deadline: float) -> bytes:
    """A line from the process, or what it has written until its end or the deadline."""
    received = b""
    while not received.endswith(b"\n") and time.monotonic() < deadline:
        if select.select([read], [], [], _LOOK_SECONDS)[0]:
            chunk = os.read(read, 1 << 20)
            if not chunk:
                break
            received += chunk
    return received
