"""The flow files that deployments name: which have changed, which do not import, and which libraries they need."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable
from typing import Final, TypeAlias

from services.executor.messages import FlowSource, ImportFindings

Version: TypeAlias = tuple[tuple[str, int, int], ...]

WORTH_SECONDS: Final = 0.1


class FlowFiles:
    """What import probes found about each flow file, and the version of the files that they read."""

    def __init__(self) -> None:
        self._sources: set[FlowSource] = set()
        self._findings: dict[FlowSource, ImportFindings] = {}
        self._versions: dict[FlowSource, Version] = {}

    @property
    def sources(self) -> tuple[FlowSource, ...]:
        """All sources."""
        return tuple(sorted(self._sources))

    @property
    def problems(self) -> dict[str, str]:
        """For each flow that does not import, the reason."""
        return {str(source): found.problem for source, found in self._findings.items() if found.problem is not None}

    def worth_warming(self, warm: Collection[str]) -> bool:
        """Whether flows spend long on importing libraries that are not among the preloaded ones (``warm``)."""
        return any(
            found.problem is None and found.seconds > WORTH_SECONDS and not set(found.libraries) <= set(warm)
            for found in self._findings.values()
        )

    def set_sources(self, sources: Iterable[FlowSource]) -> None:
        """Set the sources; findings about others are dropped."""
        self._sources = set(sources)
        self._findings = {source: found for source, found in self._findings.items() if source in self._sources}
        self._versions = {source: found for source, found in self._versions.items() if source in self._sources}

    def note(self, findings: ImportFindings) -> str | None:
        """Record what a probe found; return a new problem, "" if the former one has gone, None if nothing changed."""
        known = self._findings.get(findings.source)
        self._findings[findings.source] = findings
        self._versions[findings.source] = _version(findings.files)
        before = known.problem if known is not None else None
        return None if findings.problem == before else findings.problem or ""

    def to_probe(self) -> tuple[FlowSource, ...]:
        """Return the sources that are new or whose files have changed since the last call."""
        changed = []
        for source in sorted(self._sources):
            found = self._findings.get(source)
            version = _version(found.files if found is not None else (source.file,))
            if version != self._versions.get(source):
                self._versions[source] = version
                changed.append(source)
        return tuple(changed)


def _version(files: Iterable[str]) -> Version:
    found = []
    for file in files:
        with contextlib.suppress(OSError):
            seen = os.stat(file)  # noqa: PTH116 - thousands of times an hour
            found.append((file, seen.st_mtime_ns, seen.st_size))
    return tuple(found)
