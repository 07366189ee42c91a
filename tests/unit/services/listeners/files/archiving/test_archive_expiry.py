"""What goes from `done/` and `failed/`: nothing unless that is set, then the oldest, each with its note."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from config.settings import FileSettings
from config.sources import FilesSource
from services.listeners.files.archiving.archive_expiry import ArchiveExpiry
from services.listeners.files.folder import Folder

DAY = 86_400.0


def _expiry(box: Path, **settings: Any) -> ArchiveExpiry:
    return ArchiveExpiry(Folder.of("inbox", FilesSource(path=box), FileSettings(**settings)))


@pytest.fixture
def box(tmp_path: Path) -> Path:
    for name in ("done/a.csv", "done/sub/b.csv", "failed/c.csv", "failed/c.csv.error.json", "arriving.csv"):
        path = tmp_path / "box" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 400 * 1024)
    return tmp_path / "box"


def _files(box: Path) -> list[str]:
    return sorted(str(path.relative_to(box)) for path in box.rglob("*") if path.is_file())


def test_by_default_archived_files_are_kept_for_ever(box: Path) -> None:
    expiry = _expiry(box)
    assert not expiry.is_due
    assert expiry.expire(time.time() + 10_000 * DAY) == 0
    assert len(_files(box)) == 5


def test_files_that_were_archived_too_long_ago_go_with_their_notes_and_no_others(box: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").write_text("")
    (box / "failed" / "link").symlink_to(tmp_path / "elsewhere")
    expiry = _expiry(box, failed_days=30)
    assert expiry.is_due
    assert expiry.expire(time.time() + 29 * DAY) == 0
    assert not expiry.is_due, "it has just been done"
    assert expiry.expire(time.time() + 31 * DAY) == 1
    assert _files(box) == ["arriving.csv", "done/a.csv", "done/sub/b.csv"]
    assert (tmp_path / "elsewhere" / "precious").exists()


def test_of_too_much_the_oldest_goes(box: Path) -> None:
    assert _expiry(box, done_mib=0.5, failed_mib=0.5).expire(time.time()) == 1
    assert _files(box) == ["arriving.csv", "done/sub/b.csv", "failed/c.csv", "failed/c.csv.error.json"]
