"""The scan: every file below a directory, on bytes paths, a part at a time."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from services.file_version import Version
from services.listeners.files.folder import Folder
from services.listeners.files.names import Kind, Names

_LISTED: Final = 1000
"""Of what is told to people, no more than so many examples are kept."""


class Found(NamedTuple):
    """A regular file with a name that counts."""

    path: bytes
    version: Version


def memory_of(path: bytes, version: Version) -> int:
    """What stands for a file version in memory: 64 bits, different in each process."""
    return hash((path, version))


@dataclass(slots=True)
class Report:
    """What a scan has come across so far, beside the files it gave out."""

    files: int = 0
    directories: dict[int, bytes] = field(default_factory=dict)
    """By inode."""
    temporary: list[bytes] = field(default_factory=list)
    markers: list[bytes] = field(default_factory=list)
    links: list[bytes] = field(default_factory=list)
    unreadable: list[bytes] = field(default_factory=list)
    """Directories that could not be read: nothing is known of what is below."""
    settled: set[int] = field(default_factory=set)
    """Those of the settled files that are still there."""
    complete: bool = False


class Scan:
    """One pass over a directory of a watch, and everything below it if the watch is recursive.

    Files whose `memory_of` is in ``settled`` are not given out. Symbolic links are not followed. `next` blocks for the
    time of the system calls; one pass belongs to one thread at a time.
    """

    def __init__(self, folder: Folder, names: Names, settled: AbstractSet[int], *, below: bytes = b"") -> None:
        self._folder = folder
        self._names = names
        self._settled = settled
        self.report = Report()
        self._found = self._walk(below)

    def next(self, count: int) -> list[Found]:
        """The next ``count`` files, fewer only at the end, after which `Report.complete` tells if all was seen."""
        batch: list[Found] = []
        for found in self._found:
            batch.append(found)
            if len(batch) >= count:
                return batch
        return batch

    def close(self) -> None:
        """Give the directory handles back before the end."""
        self._found.close()

    def _walk(self, below: bytes) -> Generator[Found, None, None]:
        stack = [below]
        missing = False
        while stack:
            directory = stack.pop()
            try:
                with os.scandir(self._folder.absolute(directory)) as entries:
                    prefix = directory + b"/" if directory else b""
                    for entry in entries:
                        if self._folder.is_ours(path := prefix + entry.name):
                            continue
                        found = self._look(entry, path, stack)
                        if found is not None:
                            yield found
            except FileNotFoundError:
                missing = missing or directory == below
            except NotADirectoryError:
                pass  # it was one when its parent was read: what it is now comes by its own name
            except OSError:
                self.report.unreadable.append(directory)
        self.report.complete = not missing

    def _look(self, entry: os.DirEntry[bytes], path: bytes, stack: list[bytes]) -> Found | None:
        try:
            if entry.is_dir(follow_symlinks=False):
                if self._folder.source.recursive and self._names.enters(path):
                    self.report.directories[entry.stat(follow_symlinks=False).st_ino] = path
                    stack.append(path)
                return None
            kind = self._names.kind(path)
            if kind is Kind.OTHER:
                return None
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return None
        if stat.S_ISREG(status.st_mode):
            return self._file(path, kind, Version.of(status))
        if stat.S_ISLNK(status.st_mode) and len(self.report.links) < _LISTED:
            self.report.links.append(path)
        return None

    def _file(self, path: bytes, kind: Kind, version: Version) -> Found | None:
        report = self.report
        if kind is Kind.ARRIVAL:
            report.files += 1
            memory = memory_of(path, version)
            if memory not in self._settled:
                return Found(path, version)
            report.settled.add(memory)
        elif kind is Kind.TEMPORARY and len(report.temporary) < _LISTED:
            report.temporary.append(path)
        elif kind is Kind.MARKER and len(report.markers) < _LISTED:
            report.markers.append(path)
        return None
