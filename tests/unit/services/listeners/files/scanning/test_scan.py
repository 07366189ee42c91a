"""What a scan finds, returns and counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from config.settings import FileSettings
from config.sources import FilesSource
from services.listeners.files.folder import Folder
from services.listeners.files.names import Names
from services.listeners.files.scanning.scan import Found, Scan, memory_of


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


def _parts(box: Path, **options: Any) -> tuple[Folder, Names]:
    source = FilesSource(**{"path": box, "include": ["*.csv"], **options})
    return Folder.of("inbox", source, FileSettings()), Names(source)


def _all(scan: Scan) -> list[Found]:
    found = []
    while batch := scan.next(2):
        found += batch
    return found


def test_arrivals_are_returned_and_the_rest_is_reported(box: Path) -> None:
    folder, names = _parts(box)
    scan = Scan(folder, names, frozenset())
    assert sorted(one.path for one in _all(scan)) == [b"a.csv", b"deep/d.csv", b"deep/deeper/e.csv"]
    report = scan.report
    assert report.complete
    assert report.files == 3
    assert (report.temporary, report.links) == ([b"c.csv.part"], [b"link.csv"])
    assert (report.uncovered, report.uncovered_files) == ([b"b.txt"], 1)
    assert sorted(report.directories.values()) == [b"deep", b"deep/deeper"]


def test_settled_files_are_counted_and_not_returned(box: Path) -> None:
    folder, names = _parts(box)
    first = _all(Scan(folder, names, frozenset()))
    scan = Scan(folder, names, {memory_of(*one) for one in first[1:]})
    assert _all(scan) == first[:1]
    assert scan.report.files == 3
    assert len(scan.report.settled) == 2


def test_a_scan_of_a_folder_alone_enters_no_other(box: Path) -> None:
    folder, names = _parts(box, recursive=False)
    assert [one.path for one in _all(Scan(folder, names, frozenset()))] == [b"a.csv"]


def test_a_folder_that_is_not_there_is_no_complete_scan(box: Path) -> None:
    folder, names = _parts(box)
    scan = Scan(folder, names, frozenset(), below=b"gone")
    assert _all(scan) == []
    assert not scan.report.complete
