"""The version of a file, as announced by the listener and verified before a run."""

from __future__ import annotations

import os
from typing import NamedTuple

from events.errors import Refused


class Version(NamedTuple):
    """Identifies a path's content without reading it. The ctime is no part of it, because chmod changes that."""

    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, stat: os.stat_result) -> Version:
        """Return the version in a result of ``stat``."""
        return cls(stat.st_ino, stat.st_size, stat.st_mtime_ns)

    @classmethod
    def parse(cls, text: str) -> Version:
        """The inverse of ``str``; raises `ValueError`."""
        inode, size, mtime_ns = text.split("-", 2)  # a time before 1970 has a minus sign
        return cls(int(inode), int(size), int(mtime_ns))

    def __str__(self) -> str:
        """The form of the event extension ``fileversion``."""
        return f"{self.inode}-{self.size}-{self.mtime_ns}"


def verify_version(path: str, version: str) -> None:
    """Return if the file at ``path`` still is ``version`` (``INODE-SIZE-MTIMENS``).

    Raises `Refused` with the code ``file-vanished``, ``file-changed`` or ``file-unreadable``; a changed file's new
    version has an event of its own.
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
