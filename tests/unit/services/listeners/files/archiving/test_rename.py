"""A rename that overwrites nothing, with the system's own call and without it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.listeners.files.archiving import rename
from services.listeners.files.archiving.places import copy, write_new
from services.listeners.files.archiving.rename import FilePlace, readable, rename_new, sync_directory


@pytest.fixture(params=["the system's call", "without it"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FilePlace]:
    if request.param == "without it":
        monkeypatch.setattr(rename, "_RENAME", None)
    (tmp_path / "a").write_text("a")
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield FilePlace(directory, b"a")
    os.close(directory)


def test_a_file_gets_a_free_name(place: FilePlace, tmp_path: Path) -> None:
    version = place.version()
    rename_new(place, place.beside(b"b"))
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    assert place.beside(b"b").version() == version


def test_a_taken_name_is_left_alone(place: FilePlace, tmp_path: Path) -> None:
    (tmp_path / "b").write_text("b")
    with pytest.raises(FileExistsError):
        rename_new(place, place.beside(b"b"))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "a", "b": "b"}


def test_a_link_that_leads_nowhere_takes_its_name(place: FilePlace, tmp_path: Path) -> None:
    (tmp_path / "b").symlink_to("gone")
    assert place.beside(b"b").exists()
    with pytest.raises(FileExistsError):
        rename_new(place, place.beside(b"b"))


def test_a_missing_file_is_not_renamed(place: FilePlace) -> None:
    with pytest.raises(FileNotFoundError):
        rename_new(place.beside(b"gone"), place.beside(b"b"))
    assert not place.beside(b"b").exists()


def test_a_file_is_written_whole_and_once(place: FilePlace, tmp_path: Path) -> None:
    (tmp_path / "draft").write_text("what a crash left")
    assert write_new(place.beside(b"note"), b"text", place.beside(b"draft"), 0o640)
    assert not write_new(place.beside(b"note"), b"other", place.beside(b"draft"), 0o640)
    assert (tmp_path / "note").read_text() == "text"
    assert place.beside(b"note").stat().st_mode & 0o777 == 0o640
    assert not (tmp_path / "draft").exists()


def test_a_copy_has_times_and_permissions_of_its_original(place: FilePlace, tmp_path: Path) -> None:
    os.utime(tmp_path / "a", ns=(1_000, 2_000))
    (tmp_path / "a").chmod(0o604)
    copy(place, place.beside(b"b"), place.beside(b"draft"))
    found = (tmp_path / "b").stat()
    assert (found.st_mtime_ns, found.st_mode & 0o777) == (2_000, 0o604)
    with pytest.raises(FileExistsError):
        copy(place, place.beside(b"b"), place.beside(b"draft"))
    assert not (tmp_path / "draft").exists()


def test_a_directory_is_read_by_a_descriptor_of_its_own(place: FilePlace) -> None:
    with readable(place.directory) as descriptor:
        assert [entry.name for entry in os.scandir(descriptor)] == ["a"]
    sync_directory(place.directory)
