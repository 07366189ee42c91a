"""The version of a file: what the listener announced, and what a run must still find."""

from __future__ import annotations

import os
from typing import NamedTuple

from events.errors import Refused


class Version(NamedTuple):
    """Which content a path had, without reading it. Not the ctime: chmod changes that."""

    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, stat: os.stat_result) -> Version:
        """The version that ``stat`` saw."""
        return cls(stat.st_ino, stat.st_size, stat.st_mtime_ns)

    @classmethod
    def parse(cls, text: str) -> Version:
        """The inverse of ``str``; raises `ValueError`."""
        inode, size, mtime_ns = text.split("-", 2)  # a time before 1970 brings a minus sign of its own
        return cls(int(inode), int(size), int(mtime_ns))

    def __str__(self) -> str:
        """The form of the event extension ``fileversion``."""
        return f"{self.inode}-{self.size}-{self.mtime_ns}"


def verify_version(path: str, version: str) -> None:
    """Return if the file at ``path`` still is ``version`` (``INODE-SIZE-MTIMENS``).

    Raises `Refused` with the code ``file-vanished``, ``file-changed`` or ``file-unreadable``; a file that has
    changed gets an event of its own for what it is now.
    """
    try:
        found = Version.of(os.stat(path))  # noqa: PTH116 - this module is imported into every run
    except (FileNotFoundError, NotADirectoryError) as error:
        reason = f"the file {path} is gone: it was moved or deleted after it was announced and before this run started"
        raise Refused("file-vanished", reason) from error
    except OSError as error:
        reason = f"the file {path} cannot be looked at before the run: {error.strerror}"
        raise Refused("file-unreadable", reason) from error
    if str(found) != version:
        reason = (
            f"the file {path} has changed since it was announced: it was {version} (inode-size-mtime) and is {found} "
            "now; the new version has an event, and so a run, of its own"
        )
        raise Refused("file-changed", reason)
