"""Compares a file with its row in the ledger: whether this version was announced already. Pure."""

from __future__ import annotations

from typing import Literal

from services.common.file_version import Version
from services.listeners.files.scanning.examine import Examined
from services.store.files.ledger_rows import Row, State


def is_announced(row: Row | None, version: Version) -> bool:
    """Whether this very version was announced, as far as can be told without reading the file."""
    return row is not None and row.state is not State.CLOSED and row.version == str(version)


def is_new(row: Row | None, seen: Examined, rerun: Literal["drop", "content"]) -> bool:
    """Whether a complete file of which another version was announced, or none, gets an event.

    New content always does, and content that cannot be compared counts as new. Otherwise only the file's times are new,
    and the row takes them.
    """
    if row is None or row.state is State.CLOSED:
        return True  # with `content`, the ledger itself compares with what ran before
    same = None if row.digest is None or seen.digest is None else row.digest == seen.digest
    if same is False:
        return True
    if rerun == "content":
        return not same or row.state is State.FAILED
    before = Version.parse(row.version)
    if (before.inode, before.size) != (seen.version.inode, seen.version.size):
        return True
    if same:
        # The same bytes were written again, or the file was touched. Writing leaves the atime as it was.
        return seen.ctime_ns == seen.version.mtime_ns > seen.atime_ns
    touched = seen.ctime_ns == seen.version.mtime_ns == seen.atime_ns
    return not touched
