"""Control groups for a test's time, where the test may make them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from tests.support.waiting import wait_until

_ROOT = Path("/sys/fs/cgroup")
# The limit's file, then the file that keeps what goes to the swap within it too; first of version 2, then of version 1.
_VERSIONS = (
    (_ROOT, "memory.max", "memory.swap.max", "0"),
    (_ROOT / "memory", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", None),
)
_PERIOD_US = 50_000


@contextmanager
def memory_limited(limit_bytes: int) -> Iterator[Callable[[int], None]]:
    """A group whose processes have so much memory in all; yields what puts a process into it, and all its children.

    Its processes must have ended when the context does. Skips the test where there can be no such group.
    """
    for parent, limit, swap, no_swap in _VERSIONS:
        group = _make(parent, {limit: str(limit_bytes)})
        if group is not None:
            if (group / swap).exists():
                (group / swap).write_text(no_swap or str(limit_bytes))
            break
    with _until_empty(group, "memory") as put:
        yield put


@contextmanager
def processor_limited(cores: float) -> Iterator[Callable[[int], None]]:
    """A group whose processes have so much of the machine's cores in all, otherwise as `memory_limited`."""
    quota = str(int(cores * _PERIOD_US))
    group = _make(_ROOT, {"cpu.max": f"{quota} {_PERIOD_US}"}) or _make(
        _ROOT / "cpu", {"cpu.cfs_period_us": str(_PERIOD_US), "cpu.cfs_quota_us": quota}
    )
    with _until_empty(group, "cpu") as put:
        yield put


@contextmanager
def _until_empty(group: Path | None, controller: str) -> Iterator[Callable[[int], None]]:
    if group is None:
        pytest.skip(f"no control group with a limit can be made here (that needs root and the {controller} controller)")
    processes = group / "cgroup.procs"
    try:
        yield lambda pid: _put(processes, pid)
    finally:
        wait_until(lambda: not processes.read_text(), what="the group to be empty")
        group.rmdir()


def _make(parent: Path, limits: Mapping[str, str]) -> Path | None:
    if not (parent / "cgroup.procs").exists():
        return None  # no control groups are mounted there
    group = parent / f"sluice-test-{uuid4().hex[:8]}"
    try:
        group.mkdir()
        for name, value in limits.items():
            (group / name).write_text(value)
    except OSError:
        with contextlib.suppress(OSError):
            group.rmdir()
        return None
    return group


def _put(processes: Path, pid: int) -> None:
    """A process that is in the group already has children there only: it is done when none is outside."""
    outside = {pid}
    while outside:
        for one in outside:
            with contextlib.suppress(ProcessLookupError):
                processes.write_text(str(one))
        family = {child.pid for child in psutil.Process(pid).children(recursive=True)}
        outside = family - {int(line) for line in processes.read_text().split()}
