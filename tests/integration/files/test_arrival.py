"""Cases 1 to 15 of the catalogue: when a file is complete."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.integration.files.conftest import CALM, Watched
from tests.integration.files.writers import Writer


@pytest.fixture
def writer() -> Iterator[Writer]:
    with Writer() as one:
        yield one


async def _unannounced(watched: Watched, seconds: float) -> None:
    """Fail if anything is announced within ``seconds``."""
    await asyncio.sleep(seconds)  # nothing is to happen
    assert await watched.subjects() == []


async def test_case_01_a_small_file_that_is_written_and_closed_is_announced_once(
    watched: Watched, writer: Writer
) -> None:
    watched.settings = CALM
    await watched.listen()
    writer.do("with open(path, 'w') as f: f.write('a,b')", path=str(watched.path / "a.csv"))
    (event,) = await watched.exactly(1)
    assert Path(event["data"]["path"]).read_text() == "a,b"
    assert event["data"]["size"] == 3


async def test_case_02_a_file_that_is_renamed_in_is_announced_once(
    watched: Watched, outside: Path, writer: Writer
) -> None:
    watched.settings = CALM
    await watched.listen()
    writer.do("open(source, 'w').write('a'); os.rename(source, target)",
              source=str(outside / "x"), target=str(watched.path / "a.csv"))  # fmt: skip
    await watched.exactly(1)


async def test_case_03_a_file_is_announced_when_its_writer_closes_it_and_not_before(
    watched: Watched, writer: Writer
) -> None:
    await watched.listen()
    writer.start(
        """
        import time
        with open(path, "w") as f:
            for number in range(12):  # a minute in small: longer than every other time here
                f.write(f"{number}\\n"); f.flush(); time.sleep(0.1)
        """,
        path=str(watched.path / "a.csv"),
    )
    await _unannounced(watched, 1.0)
    writer.wait()
    (event,) = await watched.exactly(1)
    assert Path(event["data"]["path"]).read_text().splitlines() == [str(number) for number in range(12)]


async def test_case_04_a_writer_that_stalls_with_the_file_open_is_waited_for(watched: Watched, writer: Writer) -> None:
    listener = await watched.listen()
    writer.do("f = open(path, 'w'); f.write('half'); f.flush()", path=str(watched.path / "a.csv"))
    await _unannounced(watched, 1.0)
    assert listener.status()["waiting"]["for"] == {"writer still open": 1}
    assert listener.status()["oldest_waiting"]["file"] == "a.csv"
    writer.do("f.write(' and half'); f.close()")
    (event,) = await watched.exactly(1)
    assert Path(event["data"]["path"]).read_text() == "half and half"


async def test_case_04_a_writer_that_died_with_the_file_open_is_not_waited_for_for_ever(watched: Watched) -> None:
    await watched.listen()
    with Writer() as one:
        one.do("f = open(path, 'w'); f.write('half'); f.flush()", path=str(watched.path / "a.csv"))
        await _unannounced(watched, 0.3)
    await watched.exactly(1)


async def test_case_05_a_file_written_in_chunks_by_reopening_is_announced_once_with_quiet_ms(
    watched: Watched, writer: Writer
) -> None:
    await watched.listen(quiet_ms=400)
    writer.do(
        """
        import time
        for number in range(6):
            with open(path, "a") as f: f.write("chunk")
            time.sleep(0.1)
        """,
        path=str(watched.path / "a.csv"),
    )
    (event,) = await watched.exactly(1)
    assert event["data"]["size"] == 30


async def test_case_06_a_part_file_is_announced_under_its_final_name_only(watched: Watched, writer: Writer) -> None:
    await watched.listen()
    writer.do("open(path + '.part', 'w').write('x')", path=str(watched.path / "a.csv"))
    await _unannounced(watched, 0.6)
    writer.do("os.rename(path + '.part', path)", path=str(watched.path / "a.csv"))
    (event,) = await watched.exactly(1)
    assert event["subject"] == "a.csv"


@pytest.mark.parametrize(
    "name",
    ["a.part", "a.filepart", "a.tmp", "a.crdownload", ".a.csv.swp", "a~", ".~lock.a.csv#", ".nfs0001", ".a.csv.Xy12zA"],
)
async def test_case_07_an_abandoned_temporary_file_is_never_announced_and_is_listed(
    watched: Watched, name: str
) -> None:
    listener = await watched.listen()
    (watched.path / name).write_text("half")
    with structlog.testing.capture_logs() as lines:
        await watched.until(lambda: [line for line in lines if line["event"] == "a file still waits"], "the warning")
        await watched.exactly(0)
    waiting = listener.status()["waiting"]
    assert waiting["for"] == {"temporary name": 1}
    assert waiting["oldest"][0]["file"] == name
    warnings = [line for line in lines if line["event"] == "a file still waits"]
    assert [(line["file"], line["waits_for"]) for line in warnings] == [(name, "temporary name")]


@pytest.mark.parametrize("marker", ["{name}.done", "{stem}.ok", "ready-{name}"])
async def test_case_08_a_file_whose_marker_comes_later_is_announced_then(watched: Watched, marker: str) -> None:
    watched.settings = CALM
    listener = await watched.listen(ready="marker", marker=marker)
    (watched.path / "a.csv").write_text("x")
    await _unannounced(watched, 0.5)
    assert listener.status()["waiting"]["for"] == {"marker missing": 1}
    (watched.path / marker.format(name="a.csv", stem="a")).touch()
    (event,) = await watched.exactly(1)
    assert event["subject"] == "a.csv"


@pytest.mark.parametrize("marker", ["{name}.done", "{stem}.ok", "ready-{name}"])
async def test_case_09_a_file_whose_marker_was_there_before_is_announced_at_once(watched: Watched, marker: str) -> None:
    watched.settings = CALM
    listener = await watched.listen(ready="marker", marker=marker)
    (watched.path / marker.format(name="a.csv", stem="a")).touch()
    await watched.until(lambda: listener.status()["waiting"]["for"] == {"marker without its file": 1}, "the orphan")
    (watched.path / "a.csv").write_text("x")
    (event,) = await watched.exactly(1)
    assert event["subject"] == "a.csv"
    assert listener.status()["waiting"]["count"] == 0


async def test_case_10_a_marker_without_its_file_is_not_announced_and_is_warned_of(watched: Watched) -> None:
    listener = await watched.listen(ready="marker")
    with structlog.testing.capture_logs() as lines:
        (watched.path / "a.csv.done").touch()
        await watched.until(lambda: [line for line in lines if line["event"] == "a file still waits"], "the warning")
        await watched.exactly(0)
    warnings = [line for line in lines if line["event"] == "a file still waits"]
    assert [(line["file"], line["waits_for"]) for line in warnings] == [("a.csv.done", "marker without its file")]
    assert listener.status()["waiting"]["for"] == {"marker without its file": 1}


async def test_a_marker_serves_one_version_and_goes_with_it(watched: Watched) -> None:
    await watched.listen(ready="marker")
    watched.archive(ready="marker")
    (watched.path / "a.csv").write_text("x")
    (watched.path / "a.csv.done").touch()
    (event,) = await watched.arrived(1)
    await watched.finish(event)
    await watched.settled()
    assert sorted(path.name for path in watched.path.iterdir()) == ["done"]
    (watched.path / "a.csv").write_text("half of the next")
    await watched.exactly(1)


async def test_a_kept_marker_does_not_vouch_for_the_next_version(watched: Watched) -> None:
    await watched.listen(ready="marker")
    (watched.path / "a.csv").write_text("x")
    (watched.path / "a.csv.done").write_text("1")
    await watched.arrived(1)
    (watched.path / "a.csv").write_text("half of the next")
    await watched.exactly(1)
    (watched.path / "a.csv.done").write_text("2")
    await watched.exactly(2)


async def test_case_11_a_writer_by_memory_map_is_waited_for_until_it_unmaps(watched: Watched, writer: Writer) -> None:
    await watched.listen()
    writer.do(
        """
        import mmap
        f = open(path, "w+b"); f.truncate(4096)
        m = mmap.mmap(f.fileno(), 4096)
        f.close(); m[:4] = b"half"
        """,
        path=str(watched.path / "a.csv"),
    )
    await _unannounced(watched, 0.8)
    writer.do("m[:8] = b'complete'; m.flush(); m.close()")
    (event,) = await watched.exactly(1)
    assert Path(event["data"]["path"]).read_bytes().startswith(b"complete")


async def test_case_12_a_large_file_moved_across_file_systems_is_announced_once(
    watched: Watched, writer: Writer
) -> None:
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == watched.path.stat().st_dev:
        pytest.skip("there is no second file system to move from (/dev/shm)")
    source = other / f"sluice-test-{os.getpid()}.bin"
    size = 1024**3
    with source.open("wb") as file:
        file.truncate(size)
    try:
        await watched.listen()
        writer.start("import subprocess; subprocess.run(['mv', source, target], check=True)",
                     source=str(source), target=str(watched.path / "big.bin"))  # fmt: skip
        await asyncio.to_thread(writer.wait)
    finally:
        source.unlink(missing_ok=True)
    (event,) = await watched.exactly(1)
    assert event["data"]["size"] == size


async def test_case_13_an_empty_file_is_announced_after_a_time_of_grace(watched: Watched) -> None:
    listener = await watched.listen(stable_seconds=1.0)
    started = time.monotonic()
    (watched.path / "a.csv").touch()
    await watched.until(lambda: listener.status()["waiting"]["for"] == {"empty": 1}, "the waiting file")
    await watched.exactly(1)
    assert time.monotonic() - started > 0.9


async def test_case_13_a_file_that_is_created_empty_and_filled_soon_is_announced_once(watched: Watched) -> None:
    await watched.listen(stable_seconds=1.0)
    (watched.path / "a.csv").touch()
    await asyncio.sleep(0.3)  # it is seen while it is empty, most often
    (watched.path / "a.csv").write_text("x")
    (event,) = await watched.exactly(1)
    assert event["data"]["size"] == 1


async def test_case_14_a_copy_that_keeps_an_old_time_is_announced_once(
    watched: Watched, outside: Path, writer: Writer
) -> None:
    watched.settings = CALM
    await watched.listen()
    old = outside / "a.csv"
    old.write_text("x")
    os.utime(old, (1_000_000_000, 1_000_000_000))
    writer.do("import subprocess; subprocess.run(['cp', '-p', source, target], check=True)",
              source=str(old), target=str(watched.path))  # fmt: skip
    (event,) = await watched.exactly(1)
    assert event["data"]["mtime"] == "2001-09-09T01:46:40Z"


@pytest.mark.parametrize("seconds", [4_000_000_000, 2**33, -5])
async def test_case_15_a_file_of_another_time_is_announced_once(watched: Watched, outside: Path, seconds: int) -> None:
    await watched.listen()
    made = outside / "a.csv"
    made.write_text("x")
    os.utime(made, (seconds, seconds))
    made.rename(watched.path / "a.csv")
    await watched.exactly(1)


async def test_case_15_a_step_of_the_clock_neither_delays_nor_repeats_a_file(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    await watched.listen()
    real = time.time_ns
    for number, step in enumerate((-3600, 3600)):
        monkeypatch.setattr(time, "time_ns", lambda step=step: real() + step * 10**9)
        (watched.path / f"{number}.csv").write_text("x")
        await watched.exactly(number + 1)


async def test_ready_stable_waits_until_nothing_changes(watched: Watched, writer: Writer) -> None:
    await watched.listen(ready="stable", stable_seconds=0.5)
    writer.do(
        """
        import time
        for number in range(6):
            with open(path, "a") as f: f.write("chunk")
            time.sleep(0.15)
        """,
        path=str(watched.path / "a.csv"),
    )
    (event,) = await watched.exactly(1)
    assert event["data"]["size"] == 30


async def test_ready_rename_takes_a_renamed_file_at_once_and_waits_for_one_being_written(
    watched: Watched, outside: Path, writer: Writer
) -> None:
    listener = await watched.listen(ready="rename")
    writer.do("f = open(path, 'w'); f.write('x'); f.flush()", path=str(watched.path / "written.csv"))
    await watched.until(lambda: listener.status()["waiting"]["for"] == {"writer still open": 1}, "the open file")
    writer.do("f.close()")
    (outside / "x").write_text("x")
    await asyncio.sleep(0.02)  # the two changes are told in this order, most often
    (outside / "x").rename(watched.path / "renamed.csv")
    (event,) = await watched.exactly(1)
    assert event["subject"] == "renamed.csv"
    assert listener.status()["waiting"]["for"] == {"not renamed into place": 1}
