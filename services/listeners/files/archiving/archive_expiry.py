"""Deletes files from a watch's archive folders by the limits on age and size, where these are set."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Iterator
from typing import Final, NamedTuple

import structlog

from services.listeners.files.archiving.file_mover import sidecar_of
from services.listeners.files.archiving.rename import FilePlace, readable
from services.listeners.files.folder import OWN, Folder
from services.listeners.files.names import SIDECAR

EVERY_SECONDS: Final = 3600.0

_DAY: Final = 86_400.0
_MIB: Final = 1024**2

log = structlog.get_logger()


class _Archived(NamedTuple):
    since: float
    """When the file was moved there: its ctime, which the rename has set."""
    size: int
    directory: bytes
    name: bytes


class ArchiveExpiry:
    """Applies the limits of one watch; sidecars are deleted with their files. Methods block for the system calls."""

    def __init__(self, folder: Folder) -> None:
        source, settings = folder.source, folder.settings
        self._folder = folder
        self._limits = [
            (source.done.encode(), settings.done_days, settings.done_mib),
            (source.failed.encode(), settings.failed_days, settings.failed_mib),
        ]
        self._next = 0.0

    @property
    def is_due(self) -> bool:
        """Whether there is a limit, and the next check is due."""
        wanted = any(days is not None or mib is not None for _, days, mib in self._limits)
        return wanted and time.monotonic() >= self._next

    def expire(self, now: float) -> int:
        """Delete files that are too old at ``now``, and the oldest of those beyond the size; return their number."""
        self._next = time.monotonic() + EVERY_SECONDS
        count = 0
        for archive, days, mib in self._limits:
            if days is None and mib is None:
                continue
            gone = self._expire(archive, now - days * _DAY if days is not None else None, mib)
            if gone:
                log.info("deleted old archived files", watch=self._folder.name, where=archive.decode(), files=gone)
            count += gone
        return count

    def _expire(self, archive: bytes, before: float | None, mib: float | None) -> int:
        """Delete files older than ``before``, and the oldest ones above ``mib``; return how many."""
        files = sorted(self._files(archive))
        excess = sum(file.size for file in files) - mib * _MIB if mib is not None else 0
        gone = 0
        for file in files:
            if not (excess > 0 or (before is not None and file.since < before)):
                break
            if self._delete(file):
                gone += 1
                excess -= file.size
        return gone

    def _files(self, archive: bytes) -> Iterator[_Archived]:
        """Return the archived files; no link is followed, except the archive folder itself if it is a link of ours."""
        waiting = [archive]
        while waiting:
            directory = waiting.pop()
            try:
                with (
                    self._folder.entered(directory, own_links=True) as place,
                    readable(place) as descriptor,
                    os.scandir(descriptor) as entries,
                ):
                    for entry in entries:
                        name = os.fsencode(entry.name)
                        if name.startswith(OWN):
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(directory + b"/" + name)
                            continue
                        found = entry.stat(follow_symlinks=False)
                        if stat.S_ISREG(found.st_mode) and not name.endswith(SIDECAR):
                            yield _Archived(found.st_ctime, found.st_size, directory, name)
            except OSError as error:
                if isinstance(error, FileNotFoundError) and directory == archive:
                    return
                log.warning("an archive folder cannot be read", watch=self._folder.name, error=error.strerror)

    def _delete(self, file: _Archived) -> bool:
        """Delete an archived file with its sidecar, unless it has changed since it was listed."""
        try:
            with self._folder.entered(file.directory, own_links=True) as directory:
                place = FilePlace(directory, file.name)
                if place.stat().st_ctime != file.since:
                    return False
                place.unlink()
                with contextlib.suppress(FileNotFoundError):
                    place.beside(sidecar_of(file.name)).unlink()
        except OSError:
            return False
        return True
