"""The sign of life of a role: a file that its event loop touches, for the supervisor on the same machine.

It needs no server, so that a role that cannot reach Redis counts as alive.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Final

SIGN_SECONDS: Final = 2.0


def sign_path(home: Path, pid: int) -> Path:
    """Return the file of the process with this id."""
    return home / "alive" / str(pid)


async def give_signs(path: Path) -> None:
    """Touch the file until cancelled, then delete it; without it if it cannot be written."""
    try:
        while True:
            with suppress(OSError):
                await asyncio.to_thread(_touch, path)
            await asyncio.sleep(SIGN_SECONDS)
    finally:
        forget_sign(path)


def last_sign(path: Path) -> int | None:
    """Return a number that changes with each sign; None if there is none yet."""
    with suppress(OSError):
        return path.stat().st_mtime_ns
    return None


def forget_sign(path: Path) -> None:
    """Delete the file of a process that has ended."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _touch(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
