"""Decides whether a file is complete: one policy for each value of ``ready``. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, assert_never

from services.listeners.files.folder import Folder
from services.listeners.files.scanning.examine import Examined
from services.listeners.files.scanning.writers import Writers

WRITER_OPEN: Final = "writer still open"
EMPTY: Final = "empty"
CHANGING: Final = "changed a moment ago"
NO_MARKER: Final = "marker missing"
NOT_RENAMED: Final = "not renamed into place"
TEMPORARY: Final = "temporary name"
UNREADABLE: Final = "unreadable"
ORPHAN: Final = "marker without its file"
NO_NAME: Final = "name is not UTF-8"


@dataclass(frozen=True, slots=True)
class Past:
    """What is known of a file from before this examination.

    ``unchanged_seconds``: how long the file has not changed. ``written_here``: the file was seen being written under
    this name. ``used_marker``: the version of the marker that completed an earlier version of the file.
    """

    unchanged_seconds: float
    written_here: bool = False
    used_marker: str | None = None


@dataclass(frozen=True, slots=True)
class CompletenessWait:
    """The file is unready. ``seconds``: when it can be complete at the earliest, None if a change must come first."""

    reason: str
    seconds: float | None = None


def readiness(folder: Folder, seen: Examined, past: Past) -> CompletenessWait | None:
    """Return None if the file is complete; otherwise what it waits for."""
    match folder.source.ready:
        case "auto":
            return _auto(folder, seen, past)
        case "stable":
            return _unchanged(folder, past)
        case "rename":
            return _rename(folder, seen, past)
        case "marker":
            if seen.marker is None or seen.marker == past.used_marker:
                return CompletenessWait(NO_MARKER)
            return _quiet(folder, past)
        case _:
            assert_never(folder.source.ready)


def _auto(folder: Folder, seen: Examined, past: Past) -> CompletenessWait | None:
    """Policy ``auto``: complete if nobody has it open for writing, or, where that is unknown, if it is unchanged."""
    if seen.writers is Writers.SOME:
        return CompletenessWait(WRITER_OPEN)
    if seen.version.size == 0:
        wait = _unchanged(folder, past)
        return CompletenessWait(EMPTY, wait.seconds) if wait else None
    if seen.writers is Writers.NONE:
        return _quiet(folder, past)
    return _unchanged(folder, past)


def _rename(folder: Folder, seen: Examined, past: Past) -> CompletenessWait | None:
    """Policy ``rename``: complete once it was renamed to this name; if that is uncertain, once it has not changed."""
    if seen.writers is Writers.SOME:
        return CompletenessWait(WRITER_OPEN)
    # A rename sets the ctime, a write both: they are equal in a file that was written here, and also in one that was
    # renamed within the clock tick of its last write. Only time distinguishes the two.
    if seen.ctime_ns != seen.version.mtime_ns:
        return _quiet(folder, past)
    if past.written_here:
        return CompletenessWait(NOT_RENAMED)
    wait = _unchanged(folder, past)
    return CompletenessWait(NOT_RENAMED, wait.seconds) if wait else None


def _unchanged(folder: Folder, past: Past) -> CompletenessWait | None:
    return _wait(max(folder.stable_seconds, folder.quiet_seconds), past)


def _quiet(folder: Folder, past: Past) -> CompletenessWait | None:
    return _wait(folder.quiet_seconds, past)


def _wait(seconds: float, past: Past) -> CompletenessWait | None:
    if past.unchanged_seconds >= seconds:
        return None
    return CompletenessWait(CHANGING, seconds - past.unchanged_seconds)
