"""Paths at which something happened become the files that are there now; no link is followed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from config.settings import FileSettings
from config.sources import FilesSource
from services.listeners.files.folder import Folder
from services.listeners.files.names import Names
from services.listeners.files.scanning.resolve import Resolved, Resolver


@pytest.fixture
def box(tmp_path: Path) -> Path:
    box = tmp_path / "inbox"
    (box / "deep" / "deeper").mkdir(parents=True)
    for name in ("a.csv", "b.txt", "c.csv.part", ".hidden", "deep/d.csv", "deep/deeper/e.csv", ".sluice-x"):
        (box / name).write_text(name)
    (box / "done").mkdir()
    (box / "done" / "old.csv").write_text("old")
    (box / "link.csv").symlink_to("a.csv")
    return box


def resolved(box: Path, *paths: bytes, **options: Any) -> Resolved:
    source = FilesSource(**{"path": box, "include": ["*.csv"], **options})
    return Resolver(Folder.of("inbox", source, FileSettings()), Names(source)).resolve(paths)


def test_paths_are_resolved_as_a_scan_would_find_them(box: Path) -> None:
    paths = [*(os.fsencode(path.relative_to(box)) for path in box.rglob("*")), b"gone.csv", b"../outside.csv"]
    found = resolved(box, *paths)
    assert sorted(one.path for one in found.found) == [b"a.csv", b"deep/d.csv", b"deep/deeper/e.csv"]
    assert (found.temporary, found.links, found.uncovered) == ([b"c.csv.part"], [b"link.csv"], [b"b.txt"])
    assert sorted(found.directories) == [b"deep", b"deep/deeper"]
    assert found.gone == [b"gone.csv"]


def test_a_path_that_is_told_several_times_is_looked_at_once(box: Path) -> None:
    assert len(resolved(box, b"a.csv", b"a.csv", b"").found) == 1


def test_what_lies_below_a_link_or_a_folder_that_is_passed_over_is_no_arrival(box: Path) -> None:
    (box / "elsewhere").symlink_to("deep")
    (box / ".git").mkdir()
    (box / ".git" / "x.csv").write_text("x")
    assert resolved(box, b"elsewhere/d.csv", b".git/x.csv", b"done/old.csv") == Resolved()


def test_a_watch_of_one_folder_hears_nothing_of_those_below(box: Path) -> None:
    assert resolved(box, b"deep/d.csv", b"deep", recursive=False) == Resolved()
    assert [one.path for one in resolved(box, b"a.csv", recursive=False).found] == [b"a.csv"]


def test_a_file_where_a_folder_was_is_gone_with_what_was_below(box: Path) -> None:
    assert resolved(box, b"a.csv/inner.csv").gone == [b"a.csv/inner.csv"]


def test_a_pipe_is_nothing(box: Path) -> None:
    os.mkfifo(box / "pipe.csv")
    assert resolved(box, b"pipe.csv") == Resolved()


@pytest.mark.parametrize(("template", "marker"), [("{name}.done", "a.csv.done"), ("{stem}.ok", "a.ok")])
def test_a_marker_is_resolved_to_its_file(box: Path, template: str, marker: str) -> None:
    (box / marker).write_text("")
    (box / marker.replace("a", "z")).write_text("")
    orphan = marker.replace("a", "z").encode()
    found = resolved(box, marker.encode(), orphan, ready="marker", marker=template)
    assert [one.path for one in found.found] == [b"a.csv"]
    assert (found.owned_markers, found.orphan_markers) == ([marker.encode()], [orphan])
