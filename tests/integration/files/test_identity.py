"""Cases 33 to 39 of the catalogue: which files are the same."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from events.errors import Refused
from services.common.file_version import verify_version
from tests.integration.files.conftest import CALM, Watched
from tests.integration.files.writers import Writer


async def test_case_33_new_content_under_the_same_name_is_a_second_event(watched: Watched) -> None:
    await watched.listen()
    (watched.path / "a.csv").write_text("one")
    await watched.exactly(1)
    (watched.path / "a.csv").write_text("two")
    first, second = await watched.exactly(2)
    assert second["subject"] == "a.csv"
    assert second["id"] != first["id"]
    assert second["data"]["sha256"] == hashlib.sha256(b"two").hexdigest()


@pytest.mark.parametrize("how", ["in place", "by rename"])
@pytest.mark.parametrize(("rerun", "events"), [("drop", 2), ("content", 1)])
async def test_case_34_the_same_content_again_runs_by_policy_where_files_are_kept(
    watched: Watched, outside: Path, how: str, rerun: str, events: int
) -> None:
    await watched.listen(rerun=rerun)
    (watched.path / "a.csv").write_text("same")
    await watched.exactly(1)
    if how == "in place":
        (watched.path / "a.csv").write_text("same")
    else:
        (outside / "a.csv").write_text("same")
        (outside / "a.csv").rename(watched.path / "a.csv")
    await watched.exactly(events)


@pytest.mark.parametrize(("rerun", "events"), [("drop", 2), ("content", 1)])
async def test_case_34_the_same_content_again_runs_by_policy_where_files_are_archived(
    watched: Watched, rerun: str, events: int
) -> None:
    await watched.listen(rerun=rerun)
    watched.archive(rerun=rerun)
    (watched.path / "a.csv").write_text("same")
    (event,) = await watched.exactly(1)
    await watched.finish(event)
    await watched.settled()
    (watched.path / "a.csv").write_text("same")
    found = await watched.exactly(events)
    if events == 2:
        await watched.finish(found[-1])
    await watched.settled()
    assert sorted(path.name for path in (watched.path / "done").iterdir()) == ["a.csv", "a~2.csv"]
    (watched.path / "a.csv").write_text("other")
    await watched.exactly(events + 1)


async def test_with_rerun_content_a_failed_content_runs_again(watched: Watched) -> None:
    await watched.listen(rerun="content")
    watched.archive(rerun="content")
    (watched.path / "a.csv").write_text("same")
    (event,) = await watched.exactly(1)
    await watched.finish(event, ok=False)
    await watched.settled()
    (watched.path / "a.csv").write_text("same")
    await watched.exactly(2)


async def test_with_rerun_content_large_files_are_compared_too(watched: Watched) -> None:
    await watched.listen(rerun="content")
    content = os.urandom(9 * 1024 * 1024)
    for _ in range(2):
        (watched.path / "big.bin").write_bytes(content)
        (event,) = await watched.exactly(1)
    assert event["data"]["sha256"] == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("state", ["in flight", "done"])
async def test_case_35_chmod_and_touch_are_no_event(watched: Watched, state: str) -> None:
    await watched.listen(on_success="keep")
    watched.archive(on_success="keep")
    path = watched.path / "a.csv"
    path.write_text("x")
    (event,) = await watched.exactly(1)
    if state == "done":
        await watched.finish(event)
        await watched.settled()
    for change in (
        lambda: path.chmod(0o600),
        lambda: os.utime(path),
        lambda: os.utime(path, (1_000_000_000, 1_000_000_000)),
        lambda: os.utime(path, (time.time() + 50, time.time() + 50)),
    ):
        change()
        await watched.exactly(1)


async def test_case_35_touching_a_large_file_is_no_event(watched: Watched) -> None:
    await watched.listen()
    path = watched.path / "big.bin"
    path.write_bytes(bytes(watched.settings.small_bytes + 1))
    (event,) = await watched.exactly(1)
    assert "sha256" not in event["data"]
    os.utime(path)
    await watched.exactly(1)


async def test_a_large_file_that_is_written_again_is_a_second_event(watched: Watched) -> None:
    await watched.listen()
    path = watched.path / "big.bin"
    path.write_bytes(bytes(watched.settings.small_bytes + 1))
    await watched.exactly(1)
    with path.open("r+b") as file:
        file.seek(watched.settings.small_bytes // 2)
        file.write(b"x")
    await watched.exactly(2)


async def test_a_file_that_is_touched_while_its_run_goes_on_is_put_away_all_the_same(watched: Watched) -> None:
    await watched.listen()
    watched.archive()
    path = watched.path / "a.csv"
    path.write_text("x")
    (event,) = await watched.exactly(1)
    os.utime(path)
    await watched.finish(event)
    await watched.settled()
    assert (watched.path / "done" / "a.csv").exists()
    await watched.exactly(1)


async def test_case_36_a_file_recreated_on_the_same_inode_is_a_second_event(watched: Watched) -> None:
    await watched.listen()
    path = watched.path / "a.csv"
    path.write_text("x")
    inode = path.stat().st_ino
    await watched.exactly(1)
    for _ in range(50):
        path.unlink()
        path.write_text("x")
        if path.stat().st_ino == inode:
            break
    else:
        pytest.skip("the file system gives no inode a second time here")
    await watched.exactly(2)


async def test_case_36_a_file_that_went_and_came_back_unchanged_is_a_second_event(
    watched: Watched, outside: Path
) -> None:
    await watched.listen()
    watched.archive(on_success="keep")
    path = watched.path / "a.csv"
    path.write_text("x")
    (event,) = await watched.exactly(1)
    await watched.finish(event)
    await watched.settled()
    path.rename(outside / "a.csv")
    await watched.scanned()
    (outside / "a.csv").rename(path)
    first, second = await watched.exactly(2)
    assert second["fileversion"] == first["fileversion"]


async def test_case_37_a_file_overwritten_before_its_run_fails_that_run_and_gets_another(watched: Watched) -> None:
    await watched.listen()
    watched.archive()
    path = watched.path / "a.csv"
    path.write_text("one")
    (first,) = await watched.exactly(1)
    path.write_text("two, longer")
    with pytest.raises(Refused, match="has changed since it was announced") as refused:
        verify_version(first["data"]["path"], first["fileversion"])
    assert refused.value.code == "file-changed"
    await watched.finish(first, ok=False)
    _, second = await watched.exactly(2)
    verify_version(second["data"]["path"], second["fileversion"])
    assert path.read_text() == "two, longer", "the new version is not put away with the failure of the old one"
    await watched.finish(second)
    await watched.settled()
    assert (watched.path / "done" / "a.csv").read_text() == "two, longer"
    await watched.exactly(2)


async def test_case_37_a_file_touched_before_its_run_gets_another_run(watched: Watched) -> None:
    await watched.listen()
    watched.archive()
    path = watched.path / "a.csv"
    path.write_text("one")
    (first,) = await watched.exactly(1)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    with pytest.raises(Refused):
        verify_version(first["data"]["path"], first["fileversion"])
    await watched.exactly(1)
    await watched.finish(first, ok=False)
    _, second = await watched.exactly(2)
    verify_version(second["data"]["path"], second["fileversion"])


async def test_case_38_a_file_overwritten_during_its_run_gets_a_second_run(watched: Watched) -> None:
    await watched.listen()
    watched.archive()
    path = watched.path / "a.csv"
    path.write_text("one")
    (first,) = await watched.exactly(1)
    verify_version(first["data"]["path"], first["fileversion"])
    path.write_text("two, longer")
    await watched.finish(first)
    _, second = await watched.exactly(2)
    assert path.read_text() == "two, longer"
    await watched.finish(second)
    await watched.settled()
    assert (watched.path / "done" / "a.csv").read_text() == "two, longer"


async def test_case_38_a_file_being_overwritten_when_its_run_ends_is_left_to_its_writer(watched: Watched) -> None:
    await watched.listen()
    watched.archive()
    path = watched.path / "a.csv"
    path.write_text("one")
    (first,) = await watched.exactly(1)
    with Writer() as writer:
        writer.do("f = open(path, 'a')", path=str(path))
        await watched.finish(first)
        await watched.scanned()
        assert path.exists()
        writer.do("f.write(' and two'); f.close()")
        _, second = await watched.exactly(2)
    assert path.read_text() == "one and two"
    await watched.finish(second)
    await watched.settled()
    assert (watched.path / "done" / "a.csv").read_text() == "one and two"


async def test_case_39_a_file_that_is_gone_before_its_run_is_said_to_be_gone_and_tried_no_more(
    watched: Watched,
) -> None:
    watched.settings = CALM
    await watched.listen()
    watched.archive()
    path = watched.path / "a.csv"
    path.write_text("one")
    (event,) = await watched.exactly(1)
    path.unlink()
    with pytest.raises(Refused, match="is gone: it was moved or deleted") as refused:
        verify_version(event["data"]["path"], event["fileversion"])
    assert refused.value.code == "file-vanished"
    await watched.finish(event, ok=False)
    numbers = await watched.settled()
    assert numbers["failed"] == 1
    await watched.exactly(1)
    assert not (watched.path / "failed" / "a.csv.error.json").exists()
