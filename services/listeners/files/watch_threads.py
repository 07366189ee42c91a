"""The threads of one watch: a file system that hangs blocks its own watch and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class WatchThreads:
    """Threads for parts of scans, for short calls, for reading whole files, and for checks of the watched folder."""

    def __init__(self, name: str) -> None:
        kinds = ("scan", "look", "read", "check")
        self.scan, self.look, self.read, self.check = self._all = [_Thread(f"sluice-{name}-{kind}") for kind in kinds]

    def close(self) -> None:
        """Accept no more calls; calls under way are left to end."""
        for thread in self._all:
            thread.pool.shutdown(wait=False, cancel_futures=True)


class _Thread:
    """One thread; a call of it runs a function there."""

    def __init__(self, name: str) -> None:
        self.pool = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def __call__(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.pool, function, *arguments)
