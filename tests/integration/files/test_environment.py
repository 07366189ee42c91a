"""Cases 40 to 46 of the catalogue: what goes wrong around the files."""

from __future__ import annotations

import asyncio
import ctypes
import io
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import structlog

from services.store.connection import AsyncRedis
from tests.integration.files.conftest import QUICK, Watched
from tests.integration.files.listening import Listening
from tests.integration.files.mounts import mount, mounted, unmount
from tests.support.waiting import eventually

_DAC_OVERRIDE, _DAC_READ_SEARCH, _FOWNER, _LEASE = 1, 2, 3, 28


def _without(*capabilities: int) -> None:
    """In a new process: give up rights that root has over everybody's files."""
    library = ctypes.CDLL(None)
    for capability in capabilities:
        library.prctl(24, capability, 0, 0, 0)


def _bound() -> None:
    _without(_DAC_OVERRIDE, _DAC_READ_SEARCH)


def _foreign() -> None:
    _without(_FOWNER, _DAC_OVERRIDE, _DAC_READ_SEARCH)


def _leaseless() -> None:
    _without(_LEASE)


async def test_case_40_an_unreadable_file_is_announced_once_it_can_be_read(
    watched: Watched, redis: AsyncRedis, valkey_url: str, tmp_path: Path
) -> None:
    watches = {"inbox": {"path": str(watched.path)}}
    with Listening(redis, valkey_url, watches, QUICK.model_dump(), log=tmp_path / "log", before=_bound) as one:
        await one.scanned()
        path = watched.path / "a.csv"
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0))
        path.write_text("x") if os.geteuid() == 0 else None

        async def waits() -> bool:
            return (await one.status())["waiting"]["for"] == {"unreadable": 1}

        await eventually(waits, what="the unreadable file in the status")
        assert await watched.events() == []
        path.chmod(0o644)
        await watched.exactly(1)


async def test_a_file_of_another_user_in_a_sticky_folder_stays_and_the_reason_says_what_to_do(
    watched: Watched, redis: AsyncRedis, valkey_url: str, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes files of other users")
    watched.path.chmod(0o1777)
    os.chown(watched.path, 65534, 65534)
    watches = {"inbox": {"path": str(watched.path)}}
    log = tmp_path / "log"
    with Listening(redis, valkey_url, watches, QUICK.model_dump(), log=log, before=_foreign) as one:
        await one.scanned()
        draft = tmp_path / "a.csv"
        draft.write_text("x")
        os.chown(draft, 65534, 65534)
        draft.rename(watched.path / "a.csv")
        (event,) = await watched.arrived(1)
        await watched.finish(event)

        async def told() -> bool:
            return "cannot be archived: Operation not permitted: a folder with the sticky bit" in log.read_text()

        await eventually(told, what="the reason in the log")
        assert (watched.path / "a.csv").read_text() == "x"
        watched.path.chmod(0o777)
        await watched.settled()
    assert (watched.path / "done" / "a.csv").read_text() == "x"


async def test_case_41_an_unreadable_subdirectory_does_not_keep_its_siblings(
    watched: Watched, redis: AsyncRedis, valkey_url: str, tmp_path: Path
) -> None:
    watches = {"inbox": {"path": str(watched.path)}}
    (watched.path / "closed").mkdir(mode=0)
    (watched.path / "open").mkdir()
    with Listening(redis, valkey_url, watches, QUICK.model_dump(), log=tmp_path / "log", before=_bound) as one:
        await one.scanned()
        (watched.path / "open" / "a.csv").write_text("x")
        (watched.path / "b.csv").write_text("x")
        await watched.arrived(2)
        assert "cannot be read" in (await one.status())["degraded"]
        (watched.path / "closed").chmod(0o755)
        (watched.path / "closed" / "c.csv").write_text("x")
        await watched.exactly(3)

        async def well() -> bool:
            return "degraded" not in await one.status()

        await eventually(well, what="a healthy status")


async def test_without_the_right_to_leases_files_wait_until_they_are_stable(
    watched: Watched, redis: AsyncRedis, valkey_url: str, tmp_path: Path
) -> None:
    if os.geteuid():
        pytest.skip("only root can make a file of somebody else")
    watches = {"inbox": {"path": str(watched.path)}}
    with Listening(redis, valkey_url, watches, QUICK.model_dump(), log=tmp_path / "log", before=_leaseless) as one:
        await one.scanned()
        with (watched.path / "a.csv").open("w") as file:
            os.chown(watched.path / "a.csv", 12345, 12345)
            for _ in range(8):
                await watched.scanned()
                file.write("x")
                file.flush()
                await eventually(lambda: _after(0.1), what="a moment")
                assert await watched.events() == []
        await watched.exactly(1)


def _fill(file: io.FileIO) -> None:
    while True:
        file.write(bytes(4096))


async def _after(seconds: float) -> bool:
    await asyncio.sleep(seconds)  # nothing is to happen
    return True


async def test_case_42_in_a_read_only_folder_a_file_runs_once_and_the_status_says_why_it_stays(
    watched: Watched, outside: Path
) -> None:
    with mounted("--bind", outside, watched.path):
        mount("-o", "remount,bind,ro", watched.path)
        listener = await watched.listen()
        archiver = watched.archive()
        (outside / "a.csv").write_text("x")
        (event,) = await watched.exactly(1)
        await watched.finish(event)
        await watched.until(lambda: "cannot be archived" in archiver.status().get("degraded", ""), "the status")
        assert "Read-only file system" in archiver.status()["degraded"]
        await watched.exactly(1)
        await watched.until(lambda: "watch-not-writable" in listener.status().get("reasons", ()), "the reason")
        mount("-o", "remount,bind,rw", watched.path)
        await watched.settled()
        assert (outside / "done" / "a.csv").exists()
        await watched.exactly(1)
        await watched.until(lambda: "degraded" not in archiver.status(), "a healthy status")
        await watched.until(lambda: "degraded" not in listener.status(), "a healthy watch")
        await watched.stop()


async def test_case_43_new_files_run_in_a_root_that_was_deleted_and_made_again(watched: Watched) -> None:
    listener = await watched.listen()
    (watched.path / "a.csv").write_text("x")
    await watched.exactly(1)
    shutil.rmtree(watched.path)
    await watched.until(lambda: "is not there" in listener.status().get("degraded", ""), "the status")
    watched.path.mkdir()
    (watched.path / "b.csv").write_text("x")
    await watched.exactly(2)
    await watched.until(lambda: "degraded" not in listener.status(), "a healthy status")
    watched.settings = watched.settings.model_copy(update={"rescan_seconds": 3600.0})
    (watched.path / "c.csv").write_text("x")
    await watched.exactly(3)


async def test_case_43_a_root_that_is_replaced_in_no_time_is_noticed(watched: Watched) -> None:
    await watched.listen(rescan_seconds=3600)
    for number in range(5):
        shutil.rmtree(watched.path)
        watched.path.mkdir()
        (watched.path / f"{number}.csv").write_text("x")
        await watched.arrived(number + 1)
    await watched.exactly(5)


async def test_case_44_a_renamed_root_is_reported_and_gives_no_wrong_paths(watched: Watched, tmp_path: Path) -> None:
    listener = await watched.listen(on_success="keep")
    watched.archive(on_success="keep")
    (watched.path / "a.csv").write_text("x")
    (event,) = await watched.exactly(1)
    await watched.finish(event)
    await watched.settled()
    watched.path.rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "b.csv").write_text("x")
    await watched.until(lambda: "is not there" in listener.status().get("degraded", ""), "the status")
    assert await watched.subjects() == ["a.csv"]
    (tmp_path / "elsewhere").rename(watched.path)
    events = await watched.exactly(2)
    assert [event["subject"] for event in events] == ["a.csv", "b.csv"]
    assert Path(events[-1]["data"]["path"]).read_text() == "x"


@pytest.mark.parametrize("kind", ["bind", "loop"])
async def test_case_45_files_do_not_run_again_after_an_unmount_and_a_mount(
    watched: Watched, outside: Path, tmp_path: Path, kind: str
) -> None:
    what: tuple[str | Path, ...] = ("--bind", outside)
    if kind == "loop":
        image = tmp_path / "image"
        with image.open("wb") as file:
            file.truncate(16 * 1024 * 1024)
        if shutil.which("mkfs.ext4") is None:
            pytest.skip("there is no mkfs.ext4 here to make a file system with")
        subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True, capture_output=True)
        what = ("-o", "loop", image)
    (watched.path / "under.csv").write_text("below the mount")
    with mounted(*what, watched.path):
        listener = await watched.listen(on_success="keep", exclude=["lost+found/**"])
        watched.archive(on_success="keep")
        for number in range(5):
            (watched.path / f"{number}.csv").write_text("x")
        for event in await watched.exactly(5):
            await watched.finish(event)
        await watched.settled()
        unmount(watched.path)
        await watched.arrived(6)  # what lies below the mount is a file in the watched folder, too
        await watched.scanned()
        mount(*what, watched.path)
        await watched.scanned()
        (watched.path / "new.csv").write_text("x")
        events = await watched.exactly(7)
        assert sorted(event["subject"] for event in events[5:]) == ["new.csv", "under.csv"]
        assert "degraded" not in listener.status()
        await watched.stop()


async def test_case_45_an_unmounted_root_never_reads_as_everything_deleted(watched: Watched, outside: Path) -> None:
    with mounted("--bind", outside, watched.path):
        await watched.listen(on_success="keep")
        watched.archive(on_success="keep")
        for number in range(5):
            (watched.path / f"{number}.csv").write_text("x")
        for event in await watched.exactly(5):
            await watched.finish(event)
        await watched.settled()
        await watched.stop()
        unmount(watched.path)
        await watched.listen(on_success="keep")  # a listener that starts before the mount is there
        await watched.scanned()
        mount("--bind", outside, watched.path)
        await watched.exactly(5)
        await watched.stop()


async def test_case_46_on_a_full_disk_a_file_waits_to_be_put_away_and_goes_on_when_there_is_room(
    watched: Watched,
) -> None:
    with mounted("-t", "tmpfs", "-o", "size=256k", "tmpfs", watched.path):
        await watched.listen(exclude=["filler"])
        archiver = watched.archive(exclude=["filler"])
        (watched.path / "a.csv").write_text("x")
        (event,) = await watched.exactly(1)
        with (watched.path / "filler").open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            _fill(file)
        await watched.finish(event, ok=False)
        await watched.until(lambda: "No space left" in archiver.status().get("degraded", ""), "the status")
        with pytest.raises(OSError, match="No space"):
            (watched.path / "half.csv").write_text("x" * 8192)
        (watched.path / "half.csv").unlink()
        assert (watched.path / "a.csv").exists()
        (watched.path / "filler").unlink()
        (watched.path / "b.csv").write_text("x" * 8192)
        await watched.arrived(2)
        await watched.settled(but=1)
        assert json.loads((watched.path / "failed" / "a.csv.error.json").read_text())["file"] == "a.csv"
        events = [event for event in await watched.events() if event["subject"] != "half.csv"]
        assert [event["subject"] for event in events] == ["a.csv", "b.csv"]
        await watched.stop()


async def test_case_46_when_redis_is_full_files_wait_and_go_on_when_there_is_room(
    watched: Watched, redis: AsyncRedis
) -> None:
    listener = await watched.listen()
    await redis.config_set("maxmemory", "1")
    try:
        with structlog.testing.capture_logs() as lines:
            for number in range(20):
                (watched.path / f"{number}.csv").write_text("x")
            await watched.until(lambda: "maxmemory" in listener.status().get("degraded", ""), "the status")
            assert await watched.events() == []
        assert len([line for line in lines if line["log_level"] == "warning"]) <= 3, lines
    finally:
        await redis.config_set("maxmemory", "0")
    await watched.exactly(20)
    await watched.until(lambda: "degraded" not in listener.status(), "a healthy status")
