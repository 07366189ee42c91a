"""Which names are arrivals: globs, temporary names, markers."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from enum import Enum, auto
from typing import Final

from wcmatch import glob

from config.paths import FLAGS
from config.sources import FilesSource

_TEMPORARY: Final = re.compile(
    rb".*(?:\.(?:part|filepart|tmp|crdownload|swp)|~)|\.~lock\..*|\.nfs.*|\..+\.[A-Za-z0-9]{6}", re.DOTALL
)
_EVERYTHING: Final = (("*",), ("**",), ("**/*",))


class Kind(Enum):
    """What a name makes of a file."""

    ARRIVAL = auto()
    TEMPORARY = auto()
    """Still being written, by its name."""
    MARKER = auto()
    """Says that another file is complete."""
    OTHER = auto()


class Names:
    """The names of one watch; paths are bytes relative to it."""

    def __init__(self, source: FilesSource) -> None:
        self._everything = source.include in _EVERYTHING
        self._by_name, self._by_path = _compiled(source.include, 0)
        self._not_by_name, self._not_by_path = _compiled(source.exclude, glob.DOTGLOB)
        wanted = tuple(pattern for pattern in source.include if is_temporary(os.fsencode(pattern)))
        self._wanted_name, self._wanted_path = _compiled(wanted, 0)
        # A directory with a leading dot is entered only if some glob names such a one.
        self._hidden = any(f"/{pattern}".rpartition("/")[0].count("/.") for pattern in source.include)
        whole_trees = [pattern.removesuffix("/**") for pattern in source.exclude if pattern.endswith("/**")]
        self._prune = _union(whole_trees, glob.DOTGLOB)
        self._marker = Marker(source.marker) if source.ready == "marker" else None

    @property
    def marker(self) -> Marker | None:
        """How markers are named, where the watch has them."""
        return self._marker

    def kind(self, path: bytes) -> Kind:
        """What the file at ``path`` is by its name."""
        name = path.rpartition(b"/")[2]
        if self._marker is not None and self._marker.is_one(name):
            return Kind.MARKER
        text_path: str | None = None
        if self._not_by_name is not None or self._not_by_path is not None:
            text_path = os.fsdecode(path)
            if _matches(self._not_by_name, self._not_by_path, text_path):
                return Kind.OTHER
        if _TEMPORARY.fullmatch(name):
            text_path = text_path or os.fsdecode(path)
            if not _matches(self._wanted_name, self._wanted_path, text_path):
                return Kind.TEMPORARY
            return Kind.ARRIVAL
        if self._everything:
            return Kind.OTHER if name.startswith(b".") else Kind.ARRIVAL
        arrival = _matches(self._by_name, self._by_path, text_path or os.fsdecode(path))
        return Kind.ARRIVAL if arrival else Kind.OTHER

    def enters(self, directory: bytes) -> bool:
        """Whether files below ``directory`` can be arrivals."""
        if self._prune is not None and self._prune.match(os.fsdecode(directory)):
            return False
        return self._hidden or not directory.rpartition(b"/")[2].startswith(b".")


class Marker:
    """How a marker's name follows from its file's: ``{name}`` the whole name, ``{stem}`` without the last suffix."""

    def __init__(self, template: str) -> None:
        self._by_stem = "{stem}" in template
        before, _, after = template.partition("{stem}" if self._by_stem else "{name}")
        self._before, self._after = os.fsencode(before), os.fsencode(after)

    def is_one(self, name: bytes) -> bool:
        """Whether ``name`` is a marker's."""
        longer = len(name) > len(self._before) + len(self._after)
        return longer and name.startswith(self._before) and name.endswith(self._after)

    def of(self, path: bytes) -> bytes:
        """The marker of the file at ``path``."""
        directory, slash, name = path.rpartition(b"/")
        if self._by_stem:
            stem, dot, _ = name.rpartition(b".")
            name = stem if dot and stem else name
        return directory + slash + self._before + name + self._after

    def owner(self, marker: bytes) -> bytes | None:
        """The file that a marker speaks of; None where its whole name cannot be told."""
        if self._by_stem:
            return None
        directory, slash, name = marker.rpartition(b"/")
        return directory + slash + name[len(self._before) : len(name) - len(self._after)]


def is_temporary(name: bytes) -> bool:
    """Whether programs use such a name while they write."""
    return _TEMPORARY.fullmatch(name) is not None


def _compiled(patterns: Sequence[str], flags: int) -> tuple[re.Pattern[str] | None, re.Pattern[str] | None]:
    names = [pattern for pattern in patterns if "/" not in pattern]
    paths = [pattern for pattern in patterns if "/" in pattern]
    return _union(names, flags), _union(paths, flags)


def _union(patterns: Sequence[str], flags: int) -> re.Pattern[str] | None:
    if not patterns:
        return None
    expressions, _ = glob.translate(list(patterns), flags=FLAGS | flags)
    return re.compile("|".join(f"(?:{expression})" for expression in expressions))


def _matches(by_name: re.Pattern[str] | None, by_path: re.Pattern[str] | None, path: str) -> bool:
    if by_name is not None and by_name.match(path.rpartition("/")[2]):
        return True
    return by_path is not None and by_path.match(path) is not None
