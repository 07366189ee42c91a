"""How runs end that do not end by themselves, and how their processes ended."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

FINALIZER_SECONDS: Final = 120.0
"""Time limit for the hooks of a crashed or cancelled run."""

_MEANINGS: Final = {
    signal.SIGKILL: "it was killed from outside (SIGKILL), by a person or by the system when memory ran out",
    signal.SIGSEGV: "segmentation fault (SIGSEGV) in native code",
    signal.SIGBUS: "bus error (SIGBUS) in native code, or a full or truncated memory-mapped file",
    signal.SIGABRT: "it aborted itself (SIGABRT), which native code does on a fatal error",
    signal.SIGFPE: "arithmetic fault (SIGFPE) in native code",
    signal.SIGILL: "illegal instruction (SIGILL): native code built for another processor",
    signal.SIGTERM: "it was terminated from outside (SIGTERM)",
    signal.SIGINT: "it was interrupted (SIGINT)",
    signal.SIGXCPU: "it used up its processor time limit (SIGXCPU)",
    signal.SIGHUP: "its terminal went away (SIGHUP)",
}


class EndReason(StrEnum):
    """What a run is set to that does not end by itself."""

    CRASHED = "crashed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed-out"
    HANDED_BACK = "handed-back"
    """Scheduled again, to start from its top here or elsewhere."""
    OVERTAKEN = "overtaken"
    """Somebody else ended, deleted or rescheduled the run, so its process is stopped and the run's state stays."""
    LOST = "lost"
    """Its machine or its slot ended: Crashed, or scheduled again where the deployment has ``on_lost: restart``."""
    RESTORED = "restored"
    """Its process is not in the backup: as if lost, but a run that waits goes on waiting."""


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run ends that does not end by itself, and the message of its final state."""

    reason: EndReason
    message: str


def describe_exit(status: int, *, oom_kills: int = 0) -> str:
    """Return a sentence on the wait status of a process that ended without a report.

    ``oom_kills`` is the number of processes that the system killed for memory meanwhile, as far as it reports them.
    """
    if not os.WIFSIGNALED(status):
        code = os.waitstatus_to_exitcode(status)
        return f"The process of the run ended by itself with exit code {code} before the flow had ended."
    number = os.WTERMSIG(status)
    if number == signal.SIGKILL and oom_kills:
        return "The process of the run was killed by the system because memory ran out (SIGKILL by the OOM killer)."
    try:
        meaning = _MEANINGS.get(signal.Signals(number)) or f"it received {signal.Signals(number).name}"
    except ValueError:
        meaning = f"it received signal {number}"
    return f"The process of the run died: {meaning}."


def oom_kill_count() -> int:
    """Return the number of processes of this control group killed for memory so far; 0 where it is not reported."""
    try:
        groups = Path("/proc/self/cgroup").read_text("ascii").splitlines()
        return sum(_oom_kills(Path("/sys/fs/cgroup"), *line.split(":", 2)) for line in groups)
    except (OSError, ValueError):
        return 0


def _oom_kills(root: Path, hierarchy: str, controllers: str, group: str) -> int:
    """Read the counter of the memory controller: in the one hierarchy of control groups v2, or in one of v1."""
    if hierarchy == "0":
        file = root / group.lstrip("/") / "memory.events"
    elif "memory" in controllers.split(","):
        file = root / "memory" / group.lstrip("/") / "memory.oom_control"
    else:
        return 0
    try:
        counts = file.read_text("ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in counts if line.startswith("oom_kill "))
