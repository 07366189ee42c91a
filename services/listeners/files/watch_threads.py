"""The threads of one watch: a file system that hangs blocks its own watch and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class WatchThreads:
    """One thread each for scans, for short calls, for reading large files, and for checks of the watched folder."""

    def __init__(self, name: str) -> None:
        self._scan, self._look, self._read, self._check = (
            ThreadPoolExecutor(1, thread_name_prefix=f"sluice-{name}-{kind}")
            for kind in ("scan", "look", "read", "check")
        )

    async def scan(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a part of a scan."""
        return await asyncio.get_running_loop().run_in_executor(self._scan, function, *arguments)

    async def look(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a short call."""
        return await asyncio.get_running_loop().run_in_executor(self._look, function, *arguments)

    async def read(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a call that reads whole large files."""
        return await asyncio.get_running_loop().run_in_executor(self._read, function, *arguments)

    async def check(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run a check of the watched folder."""
        return await asyncio.get_running_loop().run_in_executor(self._check, function, *arguments)

    def close(self) -> None:
        """Accept no more calls; calls under way are left to end."""
        for pool in (self._scan, self._look, self._read, self._check):
            pool.shutdown(wait=False, cancel_futures=True)
