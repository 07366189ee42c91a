"""Uncovered files of a watch: not announced, counted in the status, and named once in the log."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import structlog

from services.listeners.files.arriving.unready_files import shown
from services.listeners.files.folder import Folder
from services.listeners.files.names import Names, is_sidecar

_REMEMBERED: Final = 10_000
_EXAMPLES: Final = 10
_LINE_EACH: Final = 20
"""Largest number of new files at once that are logged one by one."""

log = structlog.get_logger()


class UncoveredFiles:
    """The uncovered files of one watch that the latest scan has found."""

    def __init__(self, folder: Folder, names: Names) -> None:
        self._folder = folder
        self._names = names
        self._there: dict[bytes, None] = {}
        self._count = 0
        self._told: set[bytes] = set()

    @property
    def summary(self) -> Mapping[str, Any]:
        """The number of uncovered files, and some of them by name."""
        return {"count": self._count, "files": [shown(path) for path in list(self._there)[:_EXAMPLES]]}

    def met(self, paths: Sequence[bytes]) -> None:
        """Record files reported since the last scan. Those that exist at the next one are named in the log."""
        for path in paths:
            if path not in self._there and len(self._there) < _REMEMBERED:
                self._there[path] = None
                self._count += 1

    def scanned(self, paths: Collection[bytes], count: int) -> None:
        """Record that a full scan has found ``count``, among them ``paths``; log those that were not logged before."""
        self._there, self._count = dict.fromkeys(paths), count
        new = [path for path in paths if path not in self._told][: _REMEMBERED - len(self._told)]
        self._told.update(new)
        for path in new[:_LINE_EACH]:
            log.warning("a file is not taken", watch=self._folder.name, file=shown(path), reason=self._reason(path))
        if len(new) > _LINE_EACH:
            log.warning("more files are not taken", watch=self._folder.name, files=len(new) - _LINE_EACH)

    def _reason(self, path: bytes) -> str:
        if is_sidecar(path):
            return "it is a note of Sluice's on a file that failed; delete it once the file is mended"
        if self._names.fits_in_lower_case(path):
            return "`include` is case-sensitive: with `ignore_case: true` it covers the name"
        return "no glob of `include` covers it; add one, or name it in `exclude`"
