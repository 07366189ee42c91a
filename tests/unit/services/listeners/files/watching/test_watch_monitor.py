"""The monitor of a watch: what is heard, and what is said when something is not heard, or the folder is another one."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from config.settings import FileSettings
from config.sources import FilesSource
from services.listeners.files.folder import Folder
from services.listeners.files.watch_threads import WatchThreads
from services.listeners.files.watching import watch_monitor
from services.listeners.files.watching.watch_monitor import WatchMonitor
from services.listeners.files.watching.watcher import Watcher
from tests.support.sources import running
from tests.support.waiting import eventually

SETTINGS = FileSettings(root_check_seconds=0.02, cookie_seconds=0.05, poll_seconds=0.5, rescan_seconds=60)


@dataclass(eq=False)
class Watch:
    """A monitor, and what it has called."""

    monitor: WatchMonitor
    heard: list[bytes] = field(default_factory=list)
    rescans: int = 0


class Deaf(Watcher):
    """Hears nothing, as on a file system that announces nothing."""

    def __init__(self, *, step_ms: int, heard: Any, failed: Any) -> None:
        del heard
        super().__init__(step_ms=step_ms, heard=lambda _: None, failed=failed)


class Limited(Watcher):
    """Cannot be set up, as where the system's limit of instances is reached."""

    @override
    def arm(self, directories: Sequence[str], *, recursive: bool) -> None:
        raise OSError(24, "Too many open files")


@pytest.fixture
def box(tmp_path: Path) -> Path:
    path = tmp_path / "inbox"
    path.mkdir()
    return path


@asynccontextmanager
async def monitored(box: Path, watcher: type[Watcher] = Watcher, **options: Any) -> AsyncIterator[Watch]:
    threads = WatchThreads("inbox")
    folder = Folder.of("inbox", FilesSource(path=box, **options), SETTINGS)

    def rescan() -> None:
        watch.rescans += 1

    def heard(paths: Sequence[bytes]) -> None:
        watch.heard.extend(paths)

    watch = Watch(WatchMonitor(folder=folder, threads=threads, heard=heard, rescan=rescan, watcher=watcher))
    try:
        async with running(watch.monitor):
            await watch.monitor.armed.wait()
            yield watch
    finally:
        watch.monitor.close()
        threads.close()


def holds(condition: Callable[[], object]) -> Callable[[], Awaitable[bool]]:
    async def probe() -> bool:
        return bool(condition())

    return probe


async def test_what_happens_in_the_folder_is_heard_and_cookies_are_not(box: Path) -> None:
    async with monitored(box) as watch:
        (box / "a.csv").write_text("x")
        await eventually(holds(lambda: b"a.csv" in watch.heard), what="the file is heard of")
        assert (watch.monitor.by, watch.monitor.problems()) == ("watcher", {})
        assert watch.monitor.scan_interval() == 60
        assert not any(path.startswith(b".sluice") for path in watch.heard)


async def test_a_folder_that_goes_and_comes_back_is_told_and_watched_again(box: Path) -> None:
    async with monitored(box) as watch:
        box.rename(box.with_name("away"))
        await eventually(holds(lambda: "watch-gone" in watch.monitor.problems()), what="it is told")
        assert watch.monitor.identity is None
        rescans = watch.rescans
        box.mkdir()
        await eventually(holds(lambda: not watch.monitor.problems()), what="it is healthy again")
        assert watch.rescans > rescans

        async def heard() -> bool:
            (box / "a.csv").write_text("x")  # it may still be being set up
            return b"a.csv" in watch.heard

        await eventually(heard, what="the new folder is heard")


async def test_another_folder_at_the_path_is_scanned(box: Path) -> None:
    async with monitored(box) as watch:
        before, rescans = watch.monitor.identity, watch.rescans
        box.rename(box.with_name("away"))
        box.mkdir()
        await eventually(holds(lambda: watch.monitor.identity not in {before, None}), what="it is noticed")
        assert watch.rescans > rescans


async def test_a_watcher_that_misses_cookies_is_replaced_and_then_said_to_be_deaf(
    box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_monitor, "_ANSWER_SECONDS", 0.2)
    async with monitored(box, Deaf) as watch:
        await eventually(holds(lambda: "watch-not-heard" in watch.monitor.problems()), what="it is told")
        assert "announces nothing" in watch.monitor.problems()["watch-not-heard"]
        assert watch.monitor.by == "watcher and polling"
        assert watch.monitor.scan_interval() == 0.5
        assert watch.rescans > 2


async def test_where_no_watcher_can_be_set_up_files_are_found_by_scans(box: Path) -> None:
    async with monitored(box, Limited) as watch:
        assert "Too many open files" in watch.monitor.problems()["watch-not-heard"]
        assert watch.monitor.scan_interval() == 0.5


async def test_where_polling_is_wanted_no_watcher_is_set_up(box: Path) -> None:
    async with monitored(box, Limited, polling="always") as watch:
        assert (watch.monitor.by, watch.monitor.problems()) == ("polling", {})
        assert watch.monitor.scan_interval() == 0.5


async def test_directories_that_the_system_does_not_watch_are_told_when_it_lasts(box: Path) -> None:
    async with monitored(box) as watch:
        unseen = {1: b"deep"}
        rescans = watch.rescans
        watch.monitor.scanned(unseen)
        assert (watch.rescans, watch.monitor.problems()) == (rescans + 1, {})
        watch.monitor.scanned(unseen)  # the watcher is set up once more
        watch.monitor.scanned(unseen)
        assert "does not watch 1 of 1 directories, such as 'deep'" in watch.monitor.problems()["watch-not-heard"]
        watch.monitor.scanned({})
        assert watch.monitor.problems() == {}


@pytest.mark.skipif(os.geteuid() == 0, reason="no rights keep root out")
async def test_a_folder_in_which_nothing_can_be_written_is_told(box: Path) -> None:
    box.chmod(0o500)
    async with monitored(box) as watch:
        await eventually(holds(lambda: "watch-not-writable" in watch.monitor.problems()), what="it is told")
