"""Runs what imports a user's files in a fork of this process, where Sluice's own packages are out of the way."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from services.executor.process.process_setup import enter_project, leave_checkout

IMPORT_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.2


def in_project(root: Path, work: Callable[[], Any], *, within_seconds: float = IMPORT_SECONDS) -> Any:
    """Return what ``work`` returns, which JSON must hold; None when its process ended or took too long.

    Its working directory is ``root``. Imports resolve against ``root``, ``root/src`` and the environment, in that
    order, also those of `config`, `events`, `flows` and `services`. What it prints goes to standard error.
    """
    read, write = os.pipe()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, which this one does not touch
        pid = os.fork()
    if pid == 0:
        os.close(read)
        _be_importer(root, work, write)
    os.close(write)
    try:
        received = _received(read, time.monotonic() + within_seconds)
    finally:
        os.close(read)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    try:
        return json.loads(received)
    except ValueError:
        return None


def _be_importer(root: Path, work: Callable[[], Any], write: int) -> None:
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
