"""The system's notifications: what happens below the folders is heard, from the return of `arm` until `stop`."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from services.listeners.files.watching.watcher import Watcher
from tests.support.waiting import wait_until


class Ear:
    """What a watcher has called."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.failed = threading.Event()
        self.watcher = Watcher(step_ms=1, heard=self._heard, failed=lambda _: self.failed.set())

    def _heard(self, paths: Sequence[str]) -> None:
        self.heard += paths


@pytest.fixture
def ear() -> Iterator[Ear]:
    ear = Ear()
    yield ear
    ear.watcher.stop()


def test_what_happens_right_after_it_is_armed_is_heard(ear: Ear, tmp_path: Path) -> None:
    ear.watcher.arm([str(tmp_path)], recursive=True)
    (tmp_path / "a.csv").write_text("x")
    wait_until(lambda: str(tmp_path / "a.csv") in ear.heard, what="the file is heard of")


def test_folders_below_are_heard_where_that_is_asked_for(ear: Ear, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    ear.watcher.arm([str(tmp_path)], recursive=True)
    (tmp_path / "deep" / "a.csv").write_text("x")
    wait_until(lambda: str(tmp_path / "deep" / "a.csv") in ear.heard, what="the file below is heard of")


def test_a_rename_into_place_is_heard(ear: Ear, tmp_path: Path) -> None:
    (tmp_path / "a.part").write_text("x")
    ear.watcher.arm([str(tmp_path)], recursive=False)
    (tmp_path / "a.part").rename(tmp_path / "a.csv")
    wait_until(lambda: str(tmp_path / "a.csv") in ear.heard, what="the new name is heard of")


@pytest.mark.skipif(not Path("/proc/self/fdinfo").exists(), reason="Linux lists what is watched")
def test_it_knows_which_folders_the_system_watches(ear: Ear, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    assert ear.watcher.watched() is None
    ear.watcher.arm([str(tmp_path)], recursive=True)
    inodes = {path.stat().st_ino for path in (tmp_path, tmp_path / "deep")}
    wait_until(lambda: (ear.watcher.watched() or set()) >= inodes, what="both folders are watched")
    ear.watcher.stop()
    wait_until(lambda: ear.watcher.watched() is None, what="it has stopped")
    assert not ear.failed.is_set()
