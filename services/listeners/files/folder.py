"""One watch: its configuration with the installation's defaults filled in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from config.settings import FileSettings
from config.sources import FilesSource
from sluice.directories import enter
from sluice.protocol import REJECTED_FOLDER

OWN: Final = b".sluice"
"""Prefix of the names that Sluice itself makes in a watch; they are never arrivals."""

ALIASES: Final = OWN + b"/names"
"""Directory below the watch with the links by which files whose names are not UTF-8 can be opened."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A watch. Paths below it are bytes, relative to ``root`` and with slashes."""

    name: str
    root: bytes
    source: FilesSource
    settings: FileSettings
    archives: frozenset[bytes]
    """The names of the archive folders inside the watch, and of the folder to which bad rows are written."""

    @classmethod
    def of(cls, name: str, source: FilesSource, settings: FileSettings) -> Self:
        """Make the watch ``name``; a relative path is relative to the working directory."""
        archives = frozenset(os.fsencode(one) for one in (source.done, source.failed, REJECTED_FOLDER))
        return cls(name, os.fsencode(os.path.abspath(source.path)), source, settings, archives)

    @property
    def path(self) -> Path:
        """The watched directory."""
        return Path(os.fsdecode(self.root))

    @property
    def stable_seconds(self) -> float:
        """How long a file must be unchanged where no other sign shows that it is complete."""
        return self.source.stable_seconds or self.settings.stable_seconds

    @property
    def quiet_seconds(self) -> float:
        """How long a file must be unchanged in any case."""
        return self.source.quiet_ms / 1000

    @property
    def warn_after(self) -> float:
        """After what time an unready file is named in the log."""
        return self.source.warn_after or self.settings.warn_after_seconds

    @property
    def rescan_seconds(self) -> float:
        """Time between full scans."""
        return self.source.rescan_seconds or self.settings.rescan_seconds

    @property
    def reads_contents(self) -> bool:
        """Whether every file is digested, whatever its size."""
        return self.source.sha256 == "always" or self.source.rerun == "content"

    @property
    def moves_files(self) -> bool:
        """Whether files are taken out of the watch, which needs the right to write there."""
        return self.source.on_success != "keep" or self.source.on_failure != "keep"

    def absolute(self, relative: bytes) -> bytes:
        """Return the absolute path of a file below the watch."""
        return self.root + b"/" + relative if relative else self.root

    @contextmanager
    def entered(self, relative: bytes, *, make: bool = False, own_links: bool = False) -> Iterator[int]:
        """Yield a descriptor for a directory below the watch, for the ``dir_fd`` of calls; see `sluice.directories`."""
        directory = enter(self.root, relative, make=make, own_links=own_links)
        try:
            yield directory
        finally:
            os.close(directory)

    def is_ours(self, relative: bytes) -> bool:
        """Whether a path is Sluice's own: archive folders, cookies, links."""
        first, slash, rest = relative.partition(b"/")
        if first in self.archives or first.startswith(OWN):
            return True
        return bool(slash) and rest.rpartition(b"/")[2].startswith(OWN)
