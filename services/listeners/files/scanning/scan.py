"""The scan: reads every file name below a directory, as bytes, a part at a time."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from services.common.file_version import Version
from services.listeners.files.folder import OWN, Folder
from services.listeners.files.names import Kind, Names

_LISTED: Final = 1000
"""Largest number of examples kept for logs and the status."""


class Found(NamedTuple):
    """A regular file with a name that counts."""

    path: bytes
    version: Version


def memory_of(path: bytes, version: Version) -> int:
    """Return a hash that stands for a file version in memory: 64 bits, different in each process."""
    return hash((path, version.inode, version.size, version.mtime_ns))


@dataclass(slots=True)
class Report:
    """What a scan has found so far, besides the files that it returned."""

    files: int = 0
    directories: dict[int, bytes] = field(default_factory=dict)
    """The directories that could be read, by inode."""
    temporary: list[bytes] = field(default_factory=list)
    markers: list[bytes] = field(default_factory=list)
    links: list[bytes] = field(default_factory=list)
    uncovered: list[bytes] = field(default_factory=list)
    """Examples of uncovered files."""
    uncovered_files: int = 0
    """The number of uncovered files."""
    unreadable: list[bytes] = field(default_factory=list)
    """Directories that could not be read: the files below are unknown."""
    settled: set[int] = field(default_factory=set)
    """The settled files that still exist."""
    complete: bool = False


class Scan:
    """One pass over a directory of a watch, and everything below if the watch is recursive.

    Files whose `memory_of` is in ``settled`` are not returned. Symbolic links are not followed. `next` blocks for the
    time of the system calls; one thread at a time may use a pass.
    """

    def __init__(self, folder: Folder, names: Names, settled: AbstractSet[int], *, below: bytes = b"") -> None:
        self._folder = folder
        self._names = names
        self._settled = settled
        self.report = Report()
        self._found = self._walk(below)

    def next(self, count: int) -> list[Found]:
        """Return the next ``count`` files, fewer only at the end; then `Report.complete` is set if all was read."""
        batch: list[Found] = []
        for found in self._found:
            batch.append(found)
            if len(batch) >= count:
                return batch
        return batch

    def close(self) -> None:
        """Close the directory handles before the end."""
        self._found.close()

    def _walk(self, below: bytes) -> Generator[Found, None, None]:
        """Yield the files below a directory; directories that cannot be read are reported, and left out."""
        stack = [(below, 0)]
        missing = False
        while stack:
            directory, inode = stack.pop()
            try:
                with os.scandir(self._folder.absolute(directory)) as entries:
                    if inode:
                        self.report.directories[inode] = directory
                    yield from self._read(entries, directory, stack)
            except FileNotFoundError:
                missing = missing or directory == below
            except NotADirectoryError:
                pass  # a directory when its parent was read, and none now: the watcher reports the change
            except OSError:
                self.report.unreadable.append(directory)
        self.report.complete = not missing

    def _read(
        self, entries: Iterable[os.DirEntry[bytes]], directory: bytes, stack: list[tuple[bytes, int]]
    ) -> Generator[Found, None, None]:
        """Yield the files of one directory that are not settled, and put its directories on the stack."""
        # An unchanged tree costs what this loop costs: 100,000 iterations for 100,000 files.
        report, settled, kind_of = self.report, self._settled, self._names.kind
        still_there = report.settled.add
        prefix = directory + b"/" if directory else b""
        ours = frozenset[bytes]() if directory else self._folder.archives
        for entry in entries:
            name = entry.name
            if name in ours or name.startswith(OWN):
                continue
            path = prefix + name
            try:
                if entry.is_dir(follow_symlinks=False):
                    self._enter(entry, path, stack)
                    continue
                kind = kind_of(path)
                if kind is Kind.OTHER:
                    continue
                if kind is Kind.UNCOVERED:
                    self._uncovered(entry, path)
                    continue
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            memory = hash((path, status.st_ino, status.st_size, status.st_mtime_ns))
            if memory in settled:
                report.files += 1
                still_there(memory)
            elif self._is_arrival(path, kind, status):
                report.files += 1
                yield Found(path, Version.of(status))

    def _enter(self, entry: os.DirEntry[bytes], path: bytes, stack: list[tuple[bytes, int]]) -> None:
        if self._folder.source.recursive and self._names.enters(path):
            stack.append((path, entry.stat(follow_symlinks=False).st_ino))

    def _uncovered(self, entry: os.DirEntry[bytes], path: bytes) -> None:
        if entry.is_file(follow_symlinks=False):
            self.report.uncovered_files += 1
            if len(self.report.uncovered) < _LISTED:
                self.report.uncovered.append(path)

    def _is_arrival(self, path: bytes, kind: Kind, status: os.stat_result) -> bool:
        """Return whether this is a file to be announced; note temporary files, markers and links."""
        report = self.report
        if stat.S_ISREG(status.st_mode):
            if kind is Kind.ARRIVAL:
                return True
            noted = report.temporary if kind is Kind.TEMPORARY else report.markers
        elif stat.S_ISLNK(status.st_mode):
            noted = report.links
        else:
            return False
        if len(noted) < _LISTED:
            noted.append(path)
        return False
