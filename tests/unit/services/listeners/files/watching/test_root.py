"""What is at the path of a watch, and whether things there can be told from those that were there before."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.settings import FileSettings
from config.sources import FilesSource
from services.listeners.files.folder import Folder
from services.listeners.files.watching.root import Cookie, are_gone, look_at_root


def folder(path: Path) -> Folder:
    return Folder.of("inbox", FilesSource(path=path), FileSettings())


def test_a_folder_is_the_same_until_another_takes_its_place(tmp_path: Path) -> None:
    box = tmp_path / "inbox"
    box.mkdir()
    first = look_at_root(folder(box))
    (box / "a.csv").write_text("x")
    assert look_at_root(folder(box)) == first
    box.rename(tmp_path / "away")
    box.mkdir()
    assert look_at_root(folder(box)).identity not in {first.identity, None}


def test_a_folder_may_be_reached_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "inbox").symlink_to("real")
    assert look_at_root(folder(tmp_path / "inbox")) == look_at_root(folder(tmp_path / "real"))


@pytest.mark.parametrize(("there", "said"), [(False, "is not there: it was renamed"), (True, "is not a directory")])
def test_what_is_no_folder_is_told(tmp_path: Path, there: bool, said: str) -> None:
    if there:
        (tmp_path / "inbox").write_text("")
    found = look_at_root(folder(tmp_path / "inbox"))
    assert found.identity is None
    assert said in (found.problem or "")


def test_a_file_is_gone_only_when_nothing_has_its_name(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    (tmp_path / "dangling").symlink_to("nowhere")
    paths = [b"a", b"gone", b"a/below", b"no/folder", b"dangling", b"x" * 300]
    assert are_gone(folder(tmp_path), paths) == [b"gone", b"a/below", b"no/folder"]


def test_a_cookie_leaves_nothing_and_says_why_it_cannot_be_made(tmp_path: Path) -> None:
    cookie = Cookie(folder(tmp_path))
    assert (cookie.drop(), cookie.drop(), list(tmp_path.iterdir())) == (None, None, [])
    (tmp_path / cookie.name.decode()).write_text("somebody's")
    assert cookie.drop() == "File exists"
    assert Cookie(folder(tmp_path / "gone")).drop() == "No such file or directory"
