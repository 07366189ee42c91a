"""Mounts for a test's time, where the test may make them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def _run(*command: str | Path) -> bool:
    return subprocess.run([str(word) for word in command], capture_output=True, check=False).returncode == 0


def mount(*arguments: str | Path) -> None:
    """Mount, or skip the test where that cannot be done."""
    if shutil.which("mount") is None or not _run("mount", *arguments):
        pytest.skip("mounts cannot be made here (that needs root)")


def unmount(target: Path) -> None:
    if not _run("umount", target):
        subprocess.run(["umount", "--lazy", str(target)], check=True)


def is_mounted(target: Path) -> bool:
    """Also where something of the same file system is mounted."""
    points = (line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return str(target) in points


@contextmanager
def mounted(*arguments: str | Path) -> Iterator[None]:
    """A mount; the last argument is where."""
    mount(*arguments)
    target = Path(arguments[-1])
    try:
        yield
    finally:
        while is_mounted(target):
            unmount(target)
