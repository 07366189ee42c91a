"""Decides from a file's name whether it is an arrival: globs, temporary names, markers."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from enum import Enum, auto
from typing import Final

from wcmatch import glob

from config.paths import FLAGS
from config.sources import FilesSource

SIDECAR: Final = b".error.json"
"""Suffix of a sidecar, after the whole name of the file."""

_TEMPORARY_ENDS: Final = (b".part", b".filepart", b".tmp", b".crdownload", b".swp", b"~")
_TEMPORARY_STARTS: Final = (b".~lock.", b".nfs")
_RSYNC: Final = re.compile(rb"\..+\.[A-Za-z0-9]{6}", re.DOTALL)
_SIMPLE: Final = re.compile(r"\*(\.[A-Za-z0-9_.-]+)")
_EVERYTHING: Final = (("*",), ("**",), ("**/*",))


class Kind(Enum):
    """The kinds of names."""

    ARRIVAL = auto()
    TEMPORARY = auto()
    """A temporary name, used during writing."""
    MARKER = auto()
    """A marker, which shows that another file is complete."""
    UNCOVERED = auto()
    """Neither `include` nor `exclude` matches the name."""
    OTHER = auto()
    """Ignored: excluded, or hidden by its leading dot."""


class Names:
    """The names of one watch; paths are bytes relative to the watch."""

    def __init__(self, source: FilesSource) -> None:
        case = (FLAGS & ~glob.CASE) | glob.IGNORECASE if source.ignore_case else FLAGS
        self._everything = source.include in _EVERYTHING
        simple = [None if source.ignore_case else _SIMPLE.fullmatch(pattern) for pattern in source.include]
        self._suffixes = tuple(os.fsencode(match[1]) for match in simple if match)
        self._by_name, self._by_path = _compiled(source.include, case)
        self._not_by_name, self._not_by_path = _compiled(source.exclude, case | glob.DOTGLOB)
        self._excludes = bool(source.exclude)
        wanted = tuple(pattern for pattern in source.include if _is_special(os.fsencode(pattern)))
        self._wanted_name, self._wanted_path = _compiled(wanted, case)
        # A directory with a leading dot is entered only if some glob names a hidden directory.
        self._hidden = any(f"/{pattern}".rpartition("/")[0].count("/.") for pattern in source.include)
        whole_trees = [pattern.removesuffix("/**") for pattern in source.exclude if pattern.endswith("/**")]
        self._prune = _union(whole_trees, case | glob.DOTGLOB)
        self._marker = Marker(source.marker) if source.ready == "marker" else None

    @property
    def marker(self) -> Marker | None:
        """How markers are named; None where the watch has none."""
        return self._marker

    def kind(self, path: bytes) -> Kind:
        """Return the kind of the name of the file at ``path``."""
        name = path.rpartition(b"/")[2]
        if self._marker is not None and self._marker.is_one(name):
            return Kind.MARKER
        if self._excludes and _matches(self._not_by_name, self._not_by_path, os.fsdecode(path)):
            return Kind.OTHER
        if _is_special(name):
            if _matches(self._wanted_name, self._wanted_path, os.fsdecode(path)):
                return Kind.ARRIVAL
            return Kind.UNCOVERED if is_sidecar(name) else Kind.TEMPORARY
        hidden = name.startswith(b".")
        plainly = (self._everything or name.endswith(self._suffixes)) and not hidden
        if plainly or self._fits(path):
            return Kind.ARRIVAL
        return Kind.OTHER if hidden else Kind.UNCOVERED

    def fits_in_lower_case(self, path: bytes) -> bool:
        """Whether only the letter case of its name keeps the file from being an arrival."""
        return self.kind(path) is Kind.UNCOVERED and self.kind(path.lower()) is Kind.ARRIVAL

    def _fits(self, path: bytes) -> bool:
        return _matches(self._by_name, self._by_path, os.fsdecode(path))

    def enters(self, directory: bytes) -> bool:
        """Whether files below ``directory`` can be arrivals."""
        if self._prune is not None and self._prune.match(os.fsdecode(directory)):
            return False
        return self._hidden or not directory.rpartition(b"/")[2].startswith(b".")


class Marker:
    """The pattern of a marker's name: ``{name}`` is the file's whole name, ``{stem}`` is without the last suffix."""

    def __init__(self, template: str) -> None:
        self._by_stem = "{stem}" in template
        before, _, after = template.partition("{stem}" if self._by_stem else "{name}")
        self._before, self._after = os.fsencode(before), os.fsencode(after)

    def is_one(self, name: bytes) -> bool:
        """Whether ``name`` is the name of a marker."""
        longer = len(name) > len(self._before) + len(self._after)
        return longer and name.startswith(self._before) and name.endswith(self._after)

    def of(self, path: bytes) -> bytes:
        """Return the path of the marker of the file at ``path``."""
        directory, slash, name = path.rpartition(b"/")
        if self._by_stem:
            stem, dot, _ = name.rpartition(b".")
            name = stem if dot and stem else name
        return directory + slash + self._before + name + self._after

    def owner(self, marker: bytes) -> bytes | None:
        """Return the marker's file; None where its whole name does not follow from the marker's."""
        if self._by_stem:
            return None
        directory, slash, name = marker.rpartition(b"/")
        return directory + slash + name[len(self._before) : len(name) - len(self._after)]


def is_temporary(name: bytes) -> bool:
    """Whether programs use such a name during writing."""
    if name.endswith(_TEMPORARY_ENDS):
        return True
    return name.startswith(b".") and (name.startswith(_TEMPORARY_STARTS) or _RSYNC.fullmatch(name) is not None)


def is_sidecar(name: bytes) -> bool:
    """Whether the name is that of a sidecar."""
    return name.endswith(SIDECAR)


def _is_special(name: bytes) -> bool:
    return is_temporary(name) or is_sidecar(name)


def _compiled(patterns: Sequence[str], flags: int) -> tuple[re.Pattern[str] | None, re.Pattern[str] | None]:
    names = [pattern for pattern in patterns if "/" not in pattern]
    paths = [pattern for pattern in patterns if "/" in pattern]
    return _union(names, flags), _union(paths, flags)


def _union(patterns: Sequence[str], flags: int) -> re.Pattern[str] | None:
    if not patterns:
        return None
    expressions, _ = glob.translate(list(patterns), flags=flags)
    return re.compile("|".join(f"(?:{expression})" for expression in expressions))


def _matches(by_name: re.Pattern[str] | None, by_path: re.Pattern[str] | None, path: str) -> bool:
    if by_name is not None and by_name.match(path.rpartition("/")[2]):
        return True
    return by_path is not None and by_path.match(path) is not None
