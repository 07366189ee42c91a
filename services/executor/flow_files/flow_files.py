"""The flow files that deployments name: which have changed, which do not import, and which libraries they need."""

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
    """What import probes found about each flow file, and the version of the files that they read."""

    def __init__(self) -> None:
        self._sources: set[Source] = set()
        self._files: dict[Source, Sequence[str]] = {}
        self._versions: dict[Source, Version] = {}
        self._libraries: dict[Source, frozenset[str]] = {}
        self._seconds: dict[Source, float] = {}
        self.problems: dict[str, str] = {}
        """For each flow that does not import, the reason."""

    @property
    def sources(self) -> list[dict[str, str]]:
        """Return all sources, as messages for a fork server."""
        return [_as_message(source) for source in sorted(self._sources)]

    def worth_warming(self, warm: Collection[str]) -> bool:
        """Whether flows spend long on importing libraries that are not among the preloaded ones (``warm``)."""
        return any(
            self._seconds.get(source, 0.0) > WORTH_SECONDS and not libraries <= set(warm)
            for source, libraries in self._libraries.items()
        )

    def set_sources(self, sources: Iterable[Source]) -> None:
        """Set the sources; findings about others are dropped."""
        self._sources = set(sources)
        self._files = {source: found for source, found in self._files.items() if source in self._sources}
        self._versions = {source: found for source, found in self._versions.items() if source in self._sources}
        self._libraries = {source: found for source, found in self._libraries.items() if source in self._sources}
        kept = {_name(source) for source in self._sources}
        self.problems = {name: problem for name, problem in self.problems.items() if name in kept}

    def note(self, message: Mapping[str, Any]) -> str | None:
        """Record what a probe found; return a new problem, "" if the former one has gone, None if nothing changed."""
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
        """Return the sources that are new or whose files have changed since the last call."""
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
