"""Which versions of a file are announced, and which only change its times."""

from __future__ import annotations

import pytest

from services.common.file_version import Version
from services.listeners.files.arriving.known_files import is_announced, is_new
from services.listeners.files.scanning.examine import Examined
from services.listeners.files.scanning.writers import Writers
from services.store.files.ledger_rows import Row, State

BEFORE = Version(7, 100, 1_000)


def _row(state: State = State.DONE, digest: str | None = "aa") -> Row:
    return Row(state, str(BEFORE), 1, 0, digest, None, b"")


def _seen(version: Version, digest: str | None = "aa", *, ctime_ns: int | None = None, atime_ns: int = 0) -> Examined:
    ctime = version.mtime_ns if ctime_ns is None else ctime_ns
    return Examined(version, ctime, atime_ns, Writers.NONE, digest)


def test_a_version_is_known_by_inode_size_and_time() -> None:
    assert is_announced(_row(), BEFORE)
    for other in (Version(8, 100, 1_000), Version(7, 101, 1_000), Version(7, 100, 1_001)):
        assert not is_announced(_row(), other)


@pytest.mark.parametrize("row", [None, _row(State.CLOSED)])
def test_a_file_without_an_open_row_is_new_whatever_it_looks_like(row: Row | None) -> None:
    assert not is_announced(row, BEFORE)
    assert is_new(row, _seen(BEFORE), "drop")


@pytest.mark.parametrize("rerun", ["drop", "content"])
def test_new_content_is_always_announced(rerun: str) -> None:
    touched = _seen(BEFORE._replace(mtime_ns=5_000), "bb", atime_ns=5_000)
    assert is_new(_row(), touched, rerun)


def test_with_content_the_same_content_is_not_announced_even_in_another_file() -> None:
    assert not is_new(_row(), _seen(Version(8, 100, 9_000)), "content")


def test_with_content_the_same_content_is_announced_after_a_failure() -> None:
    assert is_new(_row(State.FAILED), _seen(Version(8, 100, 9_000)), "content")


def test_with_drop_the_same_content_in_another_file_is_announced() -> None:
    assert is_new(_row(), _seen(Version(8, 100, 9_000)), "drop")


def test_with_drop_the_same_content_written_again_is_announced() -> None:
    written = _seen(BEFORE._replace(mtime_ns=5_000), atime_ns=900)
    assert is_new(_row(), written, "drop")


@pytest.mark.parametrize(
    ("mtime_ns", "ctime_ns", "atime_ns"), [(5_000, 5_000, 5_000), (5_000, 5_000, 6_000), (10, 5_000, 10)]
)
def test_with_drop_a_touched_file_is_not_announced(mtime_ns: int, ctime_ns: int, atime_ns: int) -> None:
    touched = _seen(BEFORE._replace(mtime_ns=mtime_ns), ctime_ns=ctime_ns, atime_ns=atime_ns)
    assert not is_new(_row(), touched, "drop")


def test_what_cannot_be_told_from_new_content_is_announced() -> None:
    version = BEFORE._replace(mtime_ns=5_000)
    assert is_new(_row(digest=None), _seen(version, None, ctime_ns=9_000), "drop")
    assert is_new(_row(digest=None), _seen(version, None, atime_ns=900), "drop")
    assert not is_new(_row(digest=None), _seen(version, None, atime_ns=5_000), "drop")
