"""A watch: its settings with the defaults filled in, and which of the names in it are Sluice's own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from config.settings import FileSettings
from config.sources import FilesSource
from services.listeners.files.folder import Folder


def folder(path: Path = Path("/in"), **options: Any) -> Folder:
    return Folder.of("inbox", FilesSource(path=path, **options), FileSettings(stable_seconds=7, rescan_seconds=9))


@pytest.mark.parametrize(
    "path",
    [b"done", b"done/a.csv", b"failed/x", b"rejected/a.csv", b".sluice", b".sluice/names/x", b".sluice-cookie-1",
     b"deep/.sluice-moving-1", b"a/b/.sluice-draft"],
)  # fmt: skip
def test_archives_and_sluices_own_files_are_no_arrivals(path: bytes) -> None:
    assert folder().is_ours(path)


@pytest.mark.parametrize("path", [b"a.csv", b"deep/done", b"deep/done/a.csv", b"done.csv", b"sluice", b"deep/x.sluice"])
def test_other_files_may_be(path: bytes) -> None:
    assert not folder().is_ours(path)


def test_archive_folders_have_the_names_of_the_watch() -> None:
    own = folder(done="good", failed="bad")
    assert [own.is_ours(path) for path in (b"good/a", b"bad/a", b"done/a")] == [True, True, False]


def test_what_the_watch_says_goes_before_the_installations_settings() -> None:
    assert (folder().stable_seconds, folder(stable_seconds=1).stable_seconds) == (7, 1)
    assert (folder().rescan_seconds, folder(rescan_seconds=2).rescan_seconds) == (9, 2)
    assert (folder().quiet_seconds, folder(quiet_ms=250).quiet_seconds) == (0.01, 0.25)


@pytest.mark.parametrize(
    ("options", "moves", "reads"),
    [
        ({}, True, False),
        ({"on_success": "keep", "on_failure": "keep"}, False, False),
        ({"on_success": "delete", "on_failure": "keep"}, True, False),
        ({"rerun": "content"}, True, True),
        ({"sha256": "always"}, True, True),
    ],
)
def test_what_is_done_with_files_follows_from_the_watch(options: dict[str, Any], moves: bool, reads: bool) -> None:
    assert (folder(**options).moves_files, folder(**options).reads_contents) == (moves, reads)


def test_a_relative_path_is_below_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert folder(Path("in/../box")).path == tmp_path / "box"
    assert folder(Path("box")).absolute(b"a.csv") == os.fsencode(tmp_path / "box" / "a.csv")
    assert folder(Path("box")).absolute(b"") == os.fsencode(tmp_path / "box")


def test_a_folder_below_is_entered_and_left(tmp_path: Path) -> None:
    with folder(tmp_path).entered(b"a/b", make=True) as directory:
        assert os.fstat(directory).st_ino == (tmp_path / "a" / "b").stat().st_ino
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(directory)
