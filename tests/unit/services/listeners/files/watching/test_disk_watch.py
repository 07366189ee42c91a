"""The room on the disks of a watch: told in time, with when they are full, and files are taken again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from config.settings import FileSettings
from services.listeners.files.watch_threads import WatchThreads
from services.listeners.files.watching import disk_watch
from services.listeners.files.watching.disk_watch import DiskWatch
from tests.support.sources import running
from tests.support.waiting import eventually

MIB = 1024**2
ALL = FileSettings(low_disk_percent=99.999, low_disk_mib=1e12)
"""A disk with anything on it is nearly full."""


@pytest.fixture
def threads() -> Iterator[WatchThreads]:
    threads = WatchThreads("inbox")
    yield threads
    threads.close()


async def looked(watch: DiskWatch, *, full: bool) -> None:
    """Return once the disks have been looked at, and were found so."""

    async def probe() -> bool:
        return bool(watch.report()) and watch.room.is_set() is not full

    await eventually(probe, what="the disks were looked at")


async def test_a_disk_with_room_is_reported_and_told_of_no_further(tmp_path: Path, threads: WatchThreads) -> None:
    settings = FileSettings(low_disk_percent=0, full_disk_percent=0)
    watch = DiskWatch({"the watch": tmp_path, "gone": tmp_path / "gone"}, settings, threads=threads)
    async with running(watch):
        await looked(watch, full=False)
        (told,) = watch.report()
    assert (told["of"], told["path"], told["full_in_hours"]) == ("the watch", str(tmp_path), None)
    assert 0 < told["free"] <= told["size"]
    assert watch.problems() == {}


async def test_while_a_disk_is_nearly_full_there_is_no_room(
    tmp_path: Path, threads: WatchThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_watch, "LOOK_SECONDS", 0.01)
    made = []
    full = ALL.model_copy(update={"full_disk_percent": 99.999, "full_disk_mib": 1e12})
    watch = DiskWatch({"the home": tmp_path}, full, threads=threads, made_room=lambda: made.append(1))
    async with running(watch):
        await looked(watch, full=True)
        assert watch.problems()["disk-full"].startswith(f"no file is taken: the disk of {tmp_path} has ")
        watch.settings = FileSettings(low_disk_percent=0, full_disk_percent=0)
        await looked(watch, full=False)
    assert made == [1]


def test_a_disk_that_fills_up_is_told_with_when_it_is_full(tmp_path: Path, threads: WatchThreads) -> None:
    watch = DiskWatch({"the watch": tmp_path}, ALL, threads=threads)
    for minute in range(61):
        watch._looks = {"the watch": ((200 - minute) * MIB, 1000 * MIB)}
        watch._sample(minute * 60.0)
    (told,) = watch.report()
    assert told["full_in_hours"] == 2.3
    said = f"the disk of {tmp_path} has 140 MiB left (14 %), and is full in about 2.3 hours if it goes on like this"
    assert watch.problems() == {"disk-low": said}


@pytest.mark.parametrize(("minutes", "each"), [(5, 1), (61, 0), (61, -1)])
def test_no_end_is_told_of_a_disk_that_does_not_fill_or_only_for_minutes(
    tmp_path: Path, threads: WatchThreads, minutes: int, each: int
) -> None:
    watch = DiskWatch({"the watch": tmp_path}, ALL, threads=threads)
    for minute in range(minutes):
        watch._looks = {"the watch": ((200 - minute * each) * MIB, 1000 * MIB)}
        watch._sample(minute * 60.0)
    assert watch.report()[0]["full_in_hours"] is None
