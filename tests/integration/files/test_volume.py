"""Cases 16 to 24 of the catalogue: many files, and hints that do not come."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from services.listeners.files.watching.watcher import Watcher
from services.store.connection import AsyncRedis
from tests.integration.files.conftest import CALM, QUICK, Watched
from tests.integration.files.listening import Listening
from tests.integration.files.writers import Writer
from tests.support.waiting import eventually

VOLUME_SECONDS = 240.0
"""The patience for many files: an idle machine needs a tenth of it."""

MANY = """
for number in range(count):
    with open(f"{path}/{number}.csv", "w") as f: f.write("x")
"""


@pytest.fixture
def writer() -> Iterator[Writer]:
    with Writer() as one:
        yield one


def _fails(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode != 0


class Deaf(Watcher):
    """A watcher of a system that announces nothing."""

    def arm(self, directories: Sequence[str], *, recursive: bool) -> None:
        pass


async def test_case_16_a_burst_of_10_000_files_makes_10_000_events(watched: Watched, writer: Writer) -> None:
    await watched.listen()
    writer.start(MANY, path=str(watched.path), count=10_000)
    events = await watched.exactly(10_000, within_seconds=VOLUME_SECONDS)
    assert len({event["subject"] for event in events}) == 10_000
    writer.wait()


async def test_case_17_files_dropped_while_the_process_is_stopped_are_all_found(
    watched: Watched, redis: AsyncRedis, valkey_url: str, writer: Writer, tmp_path: Path
) -> None:
    settings = CALM.model_dump()
    watches = {"inbox": {"path": str(watched.path)}}
    with Listening(redis, valkey_url, watches, settings, log=tmp_path / "log") as one:
        await one.scanned()
        os.kill(one.process.pid, signal.SIGSTOP)
        # More than the system's queue holds, so that it drops what came last without a word.
        count = max(10_000, int(Path("/proc/sys/fs/inotify/max_queued_events").read_text()) // 2)
        await asyncio.to_thread(writer.do, MANY, path=str(watched.path), count=count)
        os.kill(one.process.pid, signal.SIGCONT)
        events = await watched.exactly(count, within_seconds=VOLUME_SECONDS)
    assert len({event["subject"] for event in events}) == count


async def test_case_18_a_backlog_of_100_000_files_is_announced_in_bounded_memory(
    watched: Watched, redis: AsyncRedis, valkey_url: str, tmp_path: Path
) -> None:
    backlog = 100_000
    for number in range(100):
        directory = watched.path / f"{number:02}"
        directory.mkdir()
        for index in range(backlog // 100):
            os.close(os.open(f"{directory}/{index}.csv", os.O_CREAT | os.O_WRONLY))
            if index == 0:
                (directory / "0.csv").write_text("x")
    settings = {**CALM.model_dump(), "stable_seconds": 0.1}
    with Listening(redis, valkey_url, {"inbox": {"path": str(watched.path)}}, settings, log=tmp_path / "log") as one:
        await watched.arrived(backlog, within_seconds=200)
        resident = next(
            line for line in Path(f"/proc/{one.process.pid}/status").read_text().splitlines() if "VmHWM" in line
        )
        assert int(resident.split()[1]) < 150 * 1024, resident
    assert await redis.xlen("sluice:journal") == backlog


async def test_case_19_files_in_directories_that_are_made_with_them_are_all_found(
    watched: Watched, writer: Writer
) -> None:
    watched.settings = CALM
    await watched.listen()
    writer.do(
        """
        for number in range(50):
            os.mkdir(f"{path}/{number}")
            for index in range(20):
                with open(f"{path}/{number}/{index}.csv", "w") as f: f.write("x")
        """,
        path=str(watched.path),
    )
    await watched.arrived(1000)
    await watched.exactly(1000)


async def test_case_20_a_file_in_a_deep_new_directory_is_found(watched: Watched, writer: Writer) -> None:
    watched.settings = CALM
    await watched.listen()
    writer.do("os.makedirs(path); open(path + '/deep.csv', 'w').write('x')", path=str(watched.path / "a/b/c/d/e/f/g/h"))
    (event,) = await watched.exactly(1)
    assert event["subject"] == "a/b/c/d/e/f/g/h/deep.csv"


async def test_case_21_all_of_a_directory_that_is_moved_in_is_found(watched: Watched, outside: Path) -> None:
    watched.settings = CALM
    await watched.listen()
    for number in range(10):
        (outside / "all" / str(number)).mkdir(parents=True)
        for index in range(10):
            (outside / "all" / str(number) / f"{index}.csv").write_text("x")
    (outside / "all").rename(watched.path / "all")
    await watched.arrived(100)
    await watched.exactly(100)


async def test_case_22_a_file_dropped_between_arming_and_scanning_is_announced_once(watched: Watched) -> None:
    class Between(Watcher):
        def arm(self, directories: Sequence[str], *, recursive: bool) -> None:
            (watched.path / "before.csv").write_text("x")
            super().arm(directories, recursive=recursive)
            (watched.path / "after.csv").write_text("x")

    watched.settings = CALM
    await watched.listen(watcher=Between)
    await watched.exactly(2)


async def test_case_23_where_the_watch_limit_is_hit_the_status_says_so_and_all_is_found(
    watched: Watched, redis: AsyncRedis, valkey_url: str, tmp_path: Path
) -> None:
    wrapper = ["unshare", "--user", "--map-root-user", "sh", "-c",
               'echo 20 > /proc/sys/user/max_inotify_watches && exec "$0" "$@"']  # fmt: skip
    if shutil.which("unshare") is None or _fails(*wrapper, "true"):
        pytest.skip("no user namespace can be made here, to set a lower limit of inotify watches in")
    for number in range(40):
        (watched.path / f"{number:02}").mkdir()
    watches = {"inbox": {"path": str(watched.path)}}
    with Listening(redis, valkey_url, watches, QUICK.model_dump(), log=tmp_path / "log", wrapper=wrapper) as one:
        await one.scanned()

        async def degraded() -> str:
            return (await one.status()).get("degraded", "")

        async def says_so() -> bool:
            return "max_user_watches" in await degraded()

        await eventually(says_so, what="the limit in the status")
        for number in range(40):
            (watched.path / f"{number:02}" / "a.csv").write_text("x")
        await watched.exactly(40)


async def test_case_24_where_nothing_is_announced_all_is_found_by_scans_and_the_status_says_so(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.listeners.files.watching.watch_monitor._ANSWER_SECONDS", 0.3)
    listener = await watched.listen(watcher=Deaf)
    for number in range(20):
        (watched.path / f"{number}.csv").write_text("x")
    await watched.exactly(20)
    await watched.until(lambda: "announces nothing" in listener.status().get("degraded", ""), "the status")
    assert listener.status()["by"] == "watcher and polling"


@pytest.mark.parametrize("polling", ["always"])
async def test_case_24_with_polling_always_no_watcher_is_set_up(watched: Watched, polling: str) -> None:
    def refuse(**_: Any) -> Watcher:
        raise AssertionError("a watcher was made")

    listener = await watched.listen(watcher=refuse, polling=polling)
    (watched.path / "a.csv").write_text("x")
    await watched.exactly(1)
    assert listener.status()["by"] == "polling"
    assert "degraded" not in listener.status()


async def test_after_the_process_stood_still_everything_is_looked_at(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.listeners.files.watching.watch_monitor._GAP_SECONDS", 0.3)
    monkeypatch.setattr("services.listeners.files.watching.watch_monitor._ANSWER_SECONDS", 3600.0)
    watched.settings = CALM.model_copy(update={"cookie_seconds": 3600.0})
    await watched.listen(watcher=Deaf)
    (watched.path / "a.csv").write_text("x")
    await asyncio.sleep(0.3)  # nothing is to happen
    assert await watched.events() == []
    time.sleep(0.8)  # the whole process, with its event loop
    await watched.exactly(1)
