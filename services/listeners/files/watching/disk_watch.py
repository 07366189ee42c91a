"""Watches the free space on the disks that a watch depends on: warns early, and stops announcing before one is full."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from config.settings import FileSettings
from services.listeners.files.watch_threads import WatchThreads

LOOK_SECONDS: Final = 1.0
_SAMPLE_SECONDS: Final = 60.0
_MOST_SAMPLES: Final = 1440
_LEAST_SECONDS: Final = 600.0
"""How long a disk must have been filling up before the time when it is full is estimated."""

_MIB: Final = 1024**2

log = structlog.get_logger()


@dataclass(eq=False)
class DiskWatch:
    """Checks the file systems of some folders every second; `room` is set while all of them have space.

    ``made_room`` is called when there is space again. Every blocking call is made in a thread of the watch.
    """

    folders: Mapping[str, Path]
    settings: FileSettings
    _: KW_ONLY
    threads: WatchThreads
    made_room: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        self._looks: dict[str, tuple[int, int]] = {}
        self._samples: dict[str, deque[tuple[float, int]]] = {
            name: deque(maxlen=_MOST_SAMPLES) for name in self.folders
        }
        self.room = asyncio.Event()
        self.room.set()

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            self._looks = await self.threads.check(self._look)
            self._sample(time.monotonic())
            full = self.problems().get("disk-full")
            if full and self.room.is_set():
                log.warning("files are not taken: a disk is nearly full", reason=full)
                self.room.clear()
            elif not full and not self.room.is_set():
                log.info("files are taken again: the disks have room")
                self.room.set()
                self.made_room()
            await asyncio.sleep(LOOK_SECONDS)

    def problems(self) -> dict[str, str]:
        """Return a sentence for each disk with little space, by the code of the reason."""
        settings = self.settings
        found: dict[str, list[str]] = {}
        for name, (free, size) in self._looks.items():
            left = f"the disk of {self.folders[name]} has {free / _MIB:,.0f} MiB left ({free * 100 / size:.0f} %)"
            if free < settings.stops_below(size):
                found.setdefault("disk-full", []).append(f"no file is taken: {left}")
            elif free < settings.warns_below(size):
                found.setdefault("disk-low", []).append(left + self._until_full(name))
        return {code: "; ".join(sentences) for code, sentences in found.items()}

    def report(self) -> list[dict[str, Any]]:
        """Return each disk's space for the status, in bytes."""
        return [
            {
                "of": name,
                "path": str(self.folders[name]),
                "free": free,
                "size": size,
                "full_in_hours": self._hours(name),
            }
            for name, (free, size) in self._looks.items()
        ]

    def _look(self) -> dict[str, tuple[int, int]]:
        """Return the free and whole bytes of the disk of each folder."""
        found = {}
        for name, folder in self.folders.items():
            try:
                space = os.statvfs(folder)
            except OSError:  # the part that needs the folder reports that it is missing
                continue
            if space.f_blocks:
                found[name] = (space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize)
        return found

    def _sample(self, now: float) -> None:
        for name, (free, _) in self._looks.items():
            samples = self._samples[name]
            if not samples or now - samples[-1][0] >= _SAMPLE_SECONDS:
                samples.append((now, free))

    def _hours(self, name: str) -> float | None:
        """Return in how many hours the disk is full at the rate of the last day; None if it does not fill up."""
        samples = self._samples[name]
        if len(samples) < 2 or samples[-1][0] - samples[0][0] < _LEAST_SECONDS:  # noqa: PLR2004 - two ends
            return None
        (began, free_then), (ended, free_now) = samples[0], samples[-1]
        lost = free_then - free_now
        return round(free_now / lost * (ended - began) / 3600, 1) if lost > 0 else None

    def _until_full(self, name: str) -> str:
        hours = self._hours(name)
        return "" if hours is None else f", and is full in about {hours:g} hours if it goes on like this"
