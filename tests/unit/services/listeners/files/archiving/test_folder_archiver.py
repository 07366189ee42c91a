"""What becomes of a file when its event has ended, by how it ended and what the watch says."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest

from services.listeners.files.archiving import folder_archiver
from services.store.connection import AsyncRedis
from services.store.files.ledger_rows import State
from services.store.lease import Lease
from tests.support.sources import running
from tests.support.waiting import eventually
from tests.unit.services.listeners.files.watched import Watched

Make = Callable[..., Watched]


async def announced(watch: Watched, name: str = "a.csv", content: str = "x") -> str:
    """The id of the event of a new file."""
    assert await watch.arrivals().consider([watch.put(name, content)]) == 1
    return (await watch.announced())[-1].id


async def test_a_file_whose_runs_went_well_goes_to_done(watched: Make) -> None:
    watch = watched()
    event_id = await announced(watch, "deep/a.csv")
    await watch.finish(event_id)
    await watch.archive()
    assert watch.tree() == {"done/deep/a.csv": "x"}
    assert (await watch.row("deep/a.csv")).state is State.CLOSED
    archived = await watch.returns.archived("inbox", event_id)
    assert archived is not None
    assert (archived.fate, archived.path, archived.place) == ("done", b"deep/a.csv", b"done/deep/a.csv")
    assert (await watch.ledger.numbers("inbox"))["done"] == 1


async def test_a_file_whose_run_failed_goes_to_failed_with_what_happened(watched: Make) -> None:
    watch = watched()
    event_id = await announced(watch)
    await watch.finish(event_id, ok=False, runs=[{"state_type": "FAILED", "message": "no such column"}])
    await watch.archive()
    (note,) = [content for name, content in watch.tree().items() if name != "failed/a.csv"]
    assert (watch.tree()["failed/a.csv"], json.loads(note)["event_id"]) == ("x", event_id)
    assert "no such column" in json.loads(note)["what_happened"]
    assert (await watch.ledger.numbers("inbox"))["failed"] == 1


async def test_a_file_that_no_rule_took_stays(watched: Make) -> None:
    watch = watched()
    await watch.finish(await announced(watch), matched=0)
    await watch.archive()
    assert watch.tree() == {"a.csv": "x"}
    assert (await watch.row("a.csv")).state is State.UNMATCHED


@pytest.mark.parametrize(
    ("options", "ok", "tree", "state"),
    [
        ({"on_success": "keep"}, True, {"a.csv": "x"}, State.DONE),
        ({"on_success": "delete"}, True, {}, State.CLOSED),
        ({"on_failure": "keep"}, False, {"a.csv": "x"}, State.FAILED),
        ({"done": "good"}, True, {"good/a.csv": "x"}, State.CLOSED),
    ],
)
async def test_the_watch_says_what_becomes_of_files(
    watched: Make, options: dict[str, Any], ok: bool, tree: dict[str, str], state: State
) -> None:
    watch = watched(**options)
    await watch.finish(await announced(watch), ok=ok)
    await watch.archive()
    assert watch.tree() == tree
    assert (await watch.row("a.csv")).state is state


async def test_the_marker_goes_with_its_file(watched: Make) -> None:
    watch = watched(ready="marker")
    watch.put("a.csv.done", "")
    await watch.finish(await announced(watch))
    await watch.archive()
    assert watch.tree() == {"done/a.csv": "x"}


async def test_a_file_that_is_gone_is_settled_all_the_same(watched: Make) -> None:
    watch = watched()
    event_id = await announced(watch)
    (watch.path / "a.csv").unlink()
    await watch.finish(event_id)
    await watch.archive()
    assert (await watch.row("a.csv")).state is State.CLOSED
    assert await watch.returns.archived("inbox", event_id) is None


async def test_a_file_that_was_replaced_stays_and_is_looked_for(watched: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_archiver, "_ADOPTION_SECONDS", 0.01)
    watch = watched()
    event_id = await announced(watch)
    (watch.path / "a.csv").unlink()
    watch.put("a.csv", "another one")
    await watch.finish(event_id)
    await watch.archive()
    assert watch.tree() == {"a.csv": "another one"}
    assert watch.rescans
    assert (await watch.row("a.csv")).state is State.DONE


async def test_a_file_that_was_touched_before_its_run_failed_runs_again(watched: Make) -> None:
    watch = watched()
    event_id = await announced(watch)
    os.utime(watch.path / "a.csv", ns=(1_000_000_000, 2_000_000_000))
    await watch.arrivals().consider([watch.found("a.csv")])
    await watch.finish(event_id, ok=False)
    await watch.archive()
    assert watch.tree() == {"a.csv": "x"}
    assert (await watch.row("a.csv")).state is State.CLOSED
    assert watch.rescans


async def test_an_event_of_an_earlier_version_moves_nothing(watched: Make) -> None:
    watch = watched()
    first = await announced(watch)
    (watch.path / "a.csv").unlink()
    second = await announced(watch, content="yy")
    await watch.finish(first)
    await watch.archive()
    assert watch.tree() == {"a.csv": "yy"}
    await watch.finish(second)
    await watch.archive()
    assert watch.tree() == {"done/a.csv": "yy"}


async def test_what_keeps_files_from_being_moved_is_told_until_it_is_mended(watched: Make) -> None:
    watch = watched()
    watch.put("done", "no folder")
    event_id = await announced(watch)
    archiver = watch.archiver()
    async with running(archiver):
        await watch.finish(event_id)
        await eventually(lambda: _trouble(archiver), what="the trouble is told")
        assert (archiver.trouble or "").startswith("a.csv cannot be archived: Not a directory")
        (watch.path / "done").unlink()
        await eventually(lambda: _none(archiver), what="it is told no more")
    assert watch.tree() == {"done/a.csv": "x"}


async def _trouble(archiver: folder_archiver.FolderArchiver) -> bool:
    return archiver.trouble is not None


async def _none(archiver: folder_archiver.FolderArchiver) -> bool:
    return archiver.trouble is None


async def test_one_process_at_a_time_moves_files(watched: Make, redis: AsyncRedis) -> None:
    watch = watched()
    await watch.finish(await announced(watch))
    other = Lease(redis, "files-archive:inbox", ttl_seconds=10)
    assert await other.acquire()
    idle = watch.archiver()
    assert await idle._work() is False
    assert watch.tree() == {"a.csv": "x"}
    await other.release()
    await watch.archive()
    assert watch.tree() == {"done/a.csv": "x"}


@pytest.mark.parametrize("ending", [b"not json", b"[]", b"{}"])
async def test_an_ending_that_cannot_be_read_counts_as_a_failure(watched: Make, ending: bytes) -> None:
    watch = watched()
    event = (await announced(watch), (await watch.announced())[-1].identity)
    await watch.ledger.finish([(event[1], ending)])
    await watch.archive()
    assert "failed/a.csv" in watch.tree()


async def test_a_folder_that_nobody_may_enter_does_not_end_the_archiver(watched: Make) -> None:
    watch = watched(on_failure="keep")
    event_id = await announced(watch, "private/a.csv")
    await watch.finish(event_id, ok=False)
    (due,), _ = await watch.ledger.due("inbox", 10)
    (watch.path / "private").chmod(0)
    root = os.geteuid() == 0
    try:
        if root:  # whom no rights keep out
            os.seteuid(65534)
        settled = watch.archiver()._put_one_away(due)
    finally:
        if root:
            os.seteuid(0)
        (watch.path / "private").chmod(0o700)
    assert settled is not None
    assert settled.state is State.FAILED
