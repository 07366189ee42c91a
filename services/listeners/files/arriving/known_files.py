"""Compares a file with its row in the ledger: whether this version was announced already. Pure."""

from __future__ import annotations

from enum import Enum, auto
from typing import Literal

from services.common.file_version import Version
from services.listeners.files.scanning.examine import Examined
from services.store.files.ledger_rows import Row, State


class Known(Enum):
    """How a file's version compares with its row."""

    NEW = auto()
    SAME = auto()
    """This version was announced."""
    OTHER = auto()
    """Another version of the file was announced; the content may be the same."""


class KnownVerdict(Enum):
    """What is done with a complete file."""

    ANNOUNCE = auto()
    ADOPT = auto()
    """No event: only the file's times are new. The row is updated."""


def known(row: Row | None, version: Version) -> Known:
    """Compare the file's version with its row, without reading the file."""
    if row is None or row.state is State.CLOSED:
        return Known.NEW
    return Known.SAME if row.version == str(version) else Known.OTHER


def judge(row: Row | None, seen: Examined, rerun: Literal["drop", "content"]) -> KnownVerdict:
    """Decide on a complete file that is not `Known.SAME`. New content is always announced.

    Content that cannot be compared counts as new.
    """
    if row is None or row.state is State.CLOSED:
        return KnownVerdict.ANNOUNCE  # with `content`, the ledger itself compares with what ran before
    same = None if row.digest is None or seen.digest is None else row.digest == seen.digest
    if same is False:
        return KnownVerdict.ANNOUNCE
    if rerun == "content":
        return KnownVerdict.ADOPT if same and row.state is not State.FAILED else KnownVerdict.ANNOUNCE
    before = Version.parse(row.version)
    if (before.inode, before.size) != (seen.version.inode, seen.version.size):
        return KnownVerdict.ANNOUNCE
    if same:
        # The same bytes were written again, or the file was touched. Writing leaves the atime as it was.
        written = seen.ctime_ns == seen.version.mtime_ns > seen.atime_ns
        return KnownVerdict.ANNOUNCE if written else KnownVerdict.ADOPT
    touched = seen.ctime_ns == seen.version.mtime_ns == seen.atime_ns
    return KnownVerdict.ADOPT if touched else KnownVerdict.ANNOUNCE
