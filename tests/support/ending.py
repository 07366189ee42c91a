"""Ending a process that a test has started."""

from __future__ import annotations

import contextlib
import signal
import subprocess


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL after 15 s.

    Prefect's worker ends itself by SIGINT, which what a shell has started in the background does not hear.
    """
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(15)
    process.send_signal(signal.SIGKILL)
    process.wait()
