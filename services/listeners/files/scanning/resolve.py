"""Resolves paths at which something happened to the files that are there now."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field

from services.common.file_version import Version
from services.listeners.files.folder import Folder
from services.listeners.files.names import Kind, Names
from services.listeners.files.scanning.scan import Found


@dataclass(slots=True)
class Resolved:
    """What was found at some paths; each path is in one of the fields, or is no arrival."""

    found: list[Found] = field(default_factory=list)
    directories: list[bytes] = field(default_factory=list)
    gone: list[bytes] = field(default_factory=list)
    temporary: list[bytes] = field(default_factory=list)
    owned_markers: list[bytes] = field(default_factory=list)
    orphan_markers: list[bytes] = field(default_factory=list)
    links: list[bytes] = field(default_factory=list)
    uncovered: list[bytes] = field(default_factory=list)


class Resolver:
    """Resolves paths of one watch. `resolve` blocks for the time of the system calls."""

    def __init__(self, folder: Folder, names: Names) -> None:
        self._folder = folder
        self._names = names

    def resolve(self, paths: Iterable[bytes]) -> Resolved:
        """Return what is at ``paths`` now. No link is followed; paths outside the watch are ignored."""
        resolved = Resolved()
        parents: dict[bytes, bool] = {}
        for path in dict.fromkeys(paths):
            if not path or self._folder.is_ours(path) or not self._reached(path.rpartition(b"/")[0], parents):
                continue
            self._look(path, resolved)
        return resolved

    def _owner_of(self, marker: bytes) -> bytes | None:
        """Return the marker's file, if it exists."""
        rule = self._names.marker
        if rule is None:
            return None
        named = rule.owner(marker)
        if named is not None:
            return named if self._is_file(named) else None
        directory, slash, _ = marker.rpartition(b"/")
        try:
            with os.scandir(self._folder.absolute(directory)) as entries:
                for entry in entries:
                    path = directory + slash + entry.name
                    if path != marker and rule.of(path) == marker and self._names.kind(path) is Kind.ARRIVAL:
                        return path
        except OSError:
            pass
        return None

    def _look(self, path: bytes, resolved: Resolved) -> None:
        """Note what is at the path now. Links are noted, so that they can be reported, but never followed."""
        try:
            status = os.lstat(self._folder.absolute(path))
        except (FileNotFoundError, NotADirectoryError):
            resolved.gone.append(path)
            return
        except OSError:
            return
        if stat.S_ISREG(status.st_mode):
            self._file(path, Version.of(status), resolved)
        elif stat.S_ISDIR(status.st_mode):
            if self._folder.source.recursive and self._names.enters(path):
                resolved.directories.append(path)
        elif stat.S_ISLNK(status.st_mode) and self._names.kind(path) is Kind.ARRIVAL:
            resolved.links.append(path)

    def _file(self, path: bytes, version: Version, resolved: Resolved) -> None:
        """Note a file by what its name says it is; a marker stands for the file that it marks."""
        match self._names.kind(path):
            case Kind.ARRIVAL:
                resolved.found.append(Found(path, version))
            case Kind.TEMPORARY:
                resolved.temporary.append(path)
            case Kind.MARKER:
                owner = self._owner_of(path)
                if owner is None:
                    resolved.orphan_markers.append(path)
                else:
                    resolved.owned_markers.append(path)
                    self._look(owner, resolved)
            case Kind.UNCOVERED:
                resolved.uncovered.append(path)
            case Kind.OTHER:
                pass

    def _reached(self, directory: bytes, parents: dict[bytes, bool]) -> bool:
        """Return whether a scan enters this directory: none of its parents is a link or excluded."""
        if not directory:
            return True
        if not self._folder.source.recursive:
            return False
        known = parents.get(directory)
        if known is None:
            known = parents[directory] = (
                self._reached(directory.rpartition(b"/")[0], parents)
                and self._names.enters(directory)
                and not _is_link(self._folder.absolute(directory))
            )
        return known

    def _is_file(self, path: bytes) -> bool:
        try:
            return stat.S_ISREG(os.lstat(self._folder.absolute(path)).st_mode)
        except OSError:
            return False


def _is_link(path: bytes) -> bool:
    try:
        return stat.S_ISLNK(os.lstat(path).st_mode)
    except OSError:
        return False  # deleted: its files are found deleted, too
