"""The flow files that deployments name: which have changed, which do not import, and what they need."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

Source: TypeAlias = tuple[str, str]
"""A folder and an entrypoint in it."""
Version: TypeAlias = tuple[tuple[str, int, int], ...]


WORTH_SECONDS: Final = 0.1


class FlowFiles:
    """What was found out about each source, and when its files looked so."""

    def __init__(self) -> None:
        self._sources: set[Source] = set()
        self._files: dict[Source, Sequence[str]] = {}
        self._versions: dict[Source, Version] = {}
        self._libraries: dict[Source, frozenset[str]] = {}
        self._seconds: dict[Source, float] = {}
        self.problems: dict[str, str] = {}
        """Each flow that does not import, and why."""

    @property
    def sources(self) -> list[dict[str, str]]:
        """All of them, for a fork server."""
        return [_as_message(source) for source in sorted(self._sources)]

    def worth_warming(self, warm: Collection[str]) -> bool:
        """Whether flows spend a good while on importing libraries that are not among the warm ones."""
        return any(
            self._seconds.get(source, 0.0) > WORTH_SECONDS and not libraries <= set(warm)
            for source, libraries in self._libraries.items()
        )

    def set_sources(self, sources: Iterable[Source]) -> None:
        """Forget the sources that are not among these."""
        self._sources = set(sources)
        self._files = {source: found for source, found in self._files.items() if source in self._sources}
        self._versions = {source: found for source, found in self._versions.items() if source in self._sources}
        self._libraries = {source: found for source, found in self._libraries.items() if source in self._sources}
        kept = {_name(source) for source in self._sources}
        self.problems = {name: problem for name, problem in self.problems.items() if name in kept}

    def note(self, message: Mapping[str, Any]) -> str | None:
        """Take in what a probe found; answers the problem if it is news, "" if it is news that it has gone."""
        source = (message["source"]["path"], message["source"]["entrypoint"])
        self._files[source] = message["files"]
        self._versions[source] = _version(message["files"])
        if message["problem"] is None:
            self._libraries[source] = frozenset(message["libraries"])
            self._seconds[source] = message["seconds"]
            return "" if self.problems.pop(_name(source), None) else None
        known = self.problems.get(_name(source))
        self.problems[_name(source)] = message["problem"]
        return None if known == message["problem"] else str(message["problem"])

    def to_probe(self) -> list[dict[str, str]]:
        """The sources that are new or whose files have changed since this was last asked."""
        changed = []
        for source in sorted(self._sources):
            known = self._versions.get(source)
            version = _version(self._files.get(source, (_file(source),)))
            if version != known:
                self._versions[source] = version
                changed.append(source)
        return [_as_message(source) for source in changed]


def _version(files: Iterable[str]) -> Version:
    found = []
    for file in files:
        with contextlib.suppress(OSError):
            seen = os.stat(file)  # noqa: PTH116 - thousands of times an hour
            found.append((file, seen.st_mtime_ns, seen.st_size))
    return tuple(found)


def _file(source: Source) -> str:
    return os.path.join(source[0], source[1].rpartition(":")[0] or source[1])  # noqa: PTH118 - text in, text out


def _as_message(source: Source) -> dict[str, str]:
    return {"path": source[0], "entrypoint": source[1]}


def _name(source: Source) -> str:
    return f"{source[0]}/{source[1]}"
