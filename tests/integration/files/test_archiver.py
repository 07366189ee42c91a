"""Where files go when their runs have ended."""

from __future__ import annotations

import json
import os
import stat

import pytest

from tests.integration.files.conftest import Watched


async def test_a_file_whose_run_went_well_lies_in_done(watched: Watched) -> None:
    await watched.listen()
    watched.archive()
    (watched.path / "sub").mkdir()
    (watched.path / "sub" / "a.csv").write_text("1")
    (event,) = await watched.arrived(1)
    await watched.finish(event)
    numbers = await watched.settled()
    assert numbers["done"] == 1
    assert (watched.path / "done" / "sub" / "a.csv").read_text() == "1"
    assert not (watched.path / "sub" / "a.csv").exists()
    await watched.exactly(1)


async def test_a_file_whose_run_failed_lies_in_failed_beside_what_happened(watched: Watched) -> None:
    await watched.listen()
    watched.archive()
    (watched.path / "a.csv").write_text("1")
    (event,) = await watched.arrived(1)
    await watched.finish(event, ok=False)
    await watched.settled()
    assert (watched.path / "failed" / "a.csv").read_text() == "1"
    sidecar = json.loads((watched.path / "failed" / "a.csv.error.json").read_text())
    assert "column `amount` is missing" in sidecar["what_happened"]
    assert sidecar["run_url"].startswith("http://127.0.0.1:4200/v2/runs/flow-run/")
    assert str(watched.path / "a.csv") in sidecar["what_to_do"]
    await watched.exactly(1)


async def test_a_failed_file_that_is_dropped_again_runs_again(watched: Watched) -> None:
    await watched.listen()
    watched.archive()
    (watched.path / "a.csv").write_text("1")
    (first,) = await watched.arrived(1)
    await watched.finish(first, ok=False)
    await watched.settled()
    (watched.path / "failed" / "a.csv").rename(watched.path / "a.csv")
    _, second = await watched.exactly(2)
    assert second["id"] != first["id"]
    assert second["fileversion"] == first["fileversion"]


async def test_a_name_that_is_taken_in_done_is_never_overwritten(watched: Watched) -> None:
    await watched.listen()
    watched.archive()
    for number in range(3):
        (watched.path / "a.csv").write_text(str(number))
        events = await watched.arrived(number + 1)
        await watched.finish(events[-1])
        await watched.settled()
    done = watched.path / "done"
    assert {path.name: path.read_text() for path in done.iterdir()} == {"a.csv": "0", "a~2.csv": "1", "a~3.csv": "2"}


@pytest.mark.parametrize(("folder_mode", "file_mode", "note_mode"), [(0o2770, 0o660, 0o640), (0o755, 0o600, 0o600)])
async def test_folders_are_as_open_as_the_watched_one_and_a_note_is_as_open_as_its_file(
    watched: Watched, folder_mode: int, file_mode: int, note_mode: int
) -> None:
    """Whatever the umask: those who drop files look there for what became of them, and others are told nothing."""
    watched.path.chmod(folder_mode)
    before = os.umask(0o077)
    try:
        await watched.listen()
        watched.archive()
        (watched.path / "a.csv").write_text("1")
        (watched.path / "a.csv").chmod(file_mode)
        (event,) = await watched.arrived(1)
        await watched.finish(event, ok=False)
        await watched.settled()
    finally:
        os.umask(before)
    failed = watched.path / "failed"
    assert stat.S_IMODE(failed.stat().st_mode) == folder_mode
    assert stat.S_IMODE((failed / "a.csv").stat().st_mode) == file_mode
    assert stat.S_IMODE((failed / "a.csv.error.json").stat().st_mode) == note_mode
