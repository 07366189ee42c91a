"""An archived file goes back to where it arrived: that version only, never over another one, and after a crash too."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from config.settings import FileSettings
from config.sources import FilesSource
from services.common.file_version import Version
from services.listeners.files.archiving import putting_back
from services.listeners.files.archiving.file_mover import Mover
from services.listeners.files.archiving.putting_back import put_back
from services.listeners.files.archiving.rename import FilePlace, rename_new
from services.listeners.files.folder import Folder
from services.store.events.archived_file import ArchivedFile

EVENT = "inbox-0011223344556677-5"


@pytest.fixture
def box(tmp_path: Path) -> Path:
    path = tmp_path / "inbox"
    path.mkdir()
    return path


def folder(box: Path) -> Folder:
    return Folder.of("inbox", FilesSource(path=box), FileSettings())


def archive(box: Path, name: str = "deep/a.csv", **more: Any) -> ArchivedFile:
    """A file that has failed, with its note beside it."""
    path = box / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    version = Version.of(path.stat())
    note = json.dumps({"event_id": EVENT}).encode()
    done = Mover(folder(box)).move(name.encode(), version, EVENT, b"failed", note)
    assert done.target is not None
    said = {"version": str(version), "announced": str(version), "fate": "failed", **more}
    return ArchivedFile(at=datetime.now(UTC), path=name.encode(), place=done.target, ended={}, **said)


def tree(box: Path) -> dict[str, str]:
    return {str(path.relative_to(box)): path.read_text() for path in box.rglob("*") if path.is_file()}


def test_a_file_goes_home_and_its_note_is_deleted(box: Path) -> None:
    file = archive(box)
    assert len(tree(box)) == 2
    assert put_back(folder(box), file, EVENT) is None
    assert tree(box) == {"deep/a.csv": "x"}
    assert put_back(folder(box), file, EVENT) is None


def test_a_folder_that_is_gone_is_made_again(box: Path) -> None:
    file = archive(box)
    (box / "deep").rmdir()
    assert put_back(folder(box), file, EVENT) is None
    assert tree(box) == {"deep/a.csv": "x"}


def test_a_note_of_another_event_stays(box: Path) -> None:
    file = archive(box)
    put_back(folder(box), file, "inbox-0011223344556677-6")
    assert len(tree(box)) == 2


def edit(box: Path) -> None:
    (box / "failed" / "deep" / "a.csv").write_text("mended")


def take_away(box: Path) -> None:
    (box / "failed" / "deep" / "a.csv").unlink()


def replace_by_link(box: Path) -> None:
    take_away(box)
    (box / "secret").write_text("s")
    (box / "failed" / "deep" / "a.csv").symlink_to(box / "secret")


def occupy(box: Path) -> None:
    (box / "deep" / "a.csv").write_text("another")


@pytest.mark.parametrize(
    ("disturb", "said"),
    [
        (edit, "has changed since it was archived"),
        (take_away, "is gone: it was moved or deleted"),
        (replace_by_link, "has changed since it was archived"),
        (occupy, "another file is at deep/a.csv now"),
    ],
)
def test_nothing_is_moved_where_it_is_not_what_was_archived(
    box: Path, disturb: Callable[[Path], None], said: str
) -> None:
    file = archive(box)
    disturb(box)
    before = tree(box)
    assert said in (put_back(folder(box), file, EVENT) or "")
    assert tree(box) == before


@pytest.mark.parametrize(
    ("more", "said"),
    [({"fate": "deleted"}, "was deleted after its run"), ({"announced": "1-1-1"}, "is a copy of the file")],
)
def test_a_file_that_is_not_the_announced_one_is_left_to_people(box: Path, more: dict[str, str], said: str) -> None:
    assert said in (put_back(folder(box), archive(box, **more), EVENT) or "")


def test_a_file_that_is_replaced_at_the_last_moment_goes_back(box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = archive(box)

    moves: list[bytes] = []

    def racing(origin: FilePlace, target: FilePlace) -> None:
        if not moves:
            take_away(box)
            edit(box)
        moves.append(target.name)
        rename_new(origin, target)

    monkeypatch.setattr(putting_back, "rename_new", racing)
    assert "was replaced just now" in (put_back(folder(box), file, EVENT) or "")
    assert tree(box)["failed/deep/a.csv"] == "mended"
    assert "deep/a.csv" not in tree(box)
