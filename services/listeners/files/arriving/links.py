"""Symbolic links among the arrivals: none is followed, each is logged once."""

from __future__ import annotations

import os
from typing import Final

import structlog

from services.listeners.files.arriving.unready_files import shown
from services.listeners.files.folder import Folder

_REMEMBERED: Final = 10_000

log = structlog.get_logger()


class RefusedLinks:
    """The symbolic links found in one watch."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._met: set[bytes] = set()

    @property
    def count(self) -> int:
        """The number of links."""
        return len(self._met)

    def refuse(self, path: bytes) -> None:
        """Log, the first time, that the link at ``path`` is not followed."""
        if path in self._met or len(self._met) >= _REMEMBERED:
            return
        self._met.add(path)
        target = os.path.realpath(self._folder.absolute(path))
        outside = not target.startswith(os.path.realpath(self._folder.root) + b"/")
        say = log.warning if outside else log.info
        say(
            "symbolic link refused",
            watch=self._folder.name,
            file=shown(path),
            reason="it leads out of the watch" if outside else "its target counts under its own name",
        )
