"""Whether a file is one that was announced already: its row in the ledger held against what is there now."""

from __future__ import annotations

from enum import Enum, auto
from typing import Literal

from services.common.file_version import Version
from services.listeners.files.scanning.examine import Examined
from services.store.files.ledger_rows import Row, State


class Known(Enum):
    """What a file is to the ledger."""

    NEW = auto()
    SAME = auto()
    """This very version was announced."""
    OTHER = auto()
    """A version that was not announced, of a file that was; its content may still be the same."""


class KnownVerdict(Enum):
    """What becomes of a complete file."""

    ANNOUNCE = auto()
    ADOPT = auto()
    """No event: nothing but its times is new. The row follows it."""


def known(row: Row | None, version: Version) -> Known:
    """What the file's version is to the ledger, without reading it."""
    if row is None or row.state is State.CLOSED:
        return Known.NEW
    return Known.SAME if row.version == str(version) else Known.OTHER


def judge(row: Row | None, seen: Examined, rerun: Literal["drop", "content"]) -> KnownVerdict:
    """What becomes of a complete file that is not the `Known.SAME`. New content always is announced.

    Where it cannot be told whether the content is new, it counts as new.
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
        # The same bytes were written again, or somebody touched the file. Writing leaves the atime behind.
        written = seen.ctime_ns == seen.version.mtime_ns > seen.atime_ns
        return KnownVerdict.ANNOUNCE if written else KnownVerdict.ADOPT
    touched = seen.ctime_ns == seen.version.mtime_ns == seen.atime_ns
    return KnownVerdict.ADOPT if touched else KnownVerdict.ANNOUNCE
