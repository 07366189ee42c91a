"""Files that were found: each version is announced once, when it is complete, and remembered until it changes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import pytest

from services.listeners.files.arriving.arrivals import Arrivals
from services.listeners.files.arriving.completeness import CHANGING, NO_MARKER
from services.listeners.files.arriving.unready_files import UnreadyFiles
from services.listeners.files.scanning.scan import memory_of
from services.store.files.ledger_rows import State
from tests.support.waiting import eventually
from tests.unit.services.listeners.files.watched import Watched

Make = Callable[..., Watched]


async def test_a_complete_file_is_announced_once_and_remembered(watched: Make) -> None:
    watch = watched()
    found, arrivals = watch.put("a.csv"), watch.arrivals()
    assert await arrivals.consider([found]) == 1
    assert await arrivals.consider([found]) == 0
    (event,) = await watch.announced()
    assert (event.subject, event.source) == ("a.csv", "files/inbox")
    assert event.extensions["fileversion"] == str(found.version)
    assert arrivals.settled == {memory_of(*found)}


async def test_several_files_are_one_step(watched: Make) -> None:
    watch = watched()
    assert await watch.arrivals().consider([watch.put(f"{number}.csv") for number in range(5)]) == 5
    assert [event.subject for event in await watch.announced()] == [f"{number}.csv" for number in range(5)]


async def test_of_two_instances_one_announces(watched: Make) -> None:
    watch = watched()
    found = [watch.put("a.csv"), watch.put("b.csv")]
    each = [watch.arrivals() for _ in range(3)]
    assert sum(await asyncio.gather(*(one.consider(found) for one in each))) == 2
    assert len(await watch.announced()) == 2
    assert [len(one.settled) for one in each] == [2, 2, 2]


async def test_other_content_under_the_name_is_another_event(watched: Make) -> None:
    watch = watched()
    arrivals = watch.arrivals()
    await arrivals.consider([watch.put("a.csv")])
    (watch.path / "a.csv").unlink()
    assert await arrivals.consider([watch.put("a.csv", "yy")]) == 1
    assert len(await watch.announced()) == 2


async def test_a_file_that_was_only_touched_is_followed_and_not_announced(watched: Make) -> None:
    watch = watched()
    arrivals = watch.arrivals()
    await arrivals.consider([watch.put("a.csv")])
    os.utime(watch.path / "a.csv", ns=(1_000_000_000, 2_000_000_000))
    touched = watch.found("a.csv")
    assert await arrivals.consider([touched]) == 0
    row = await watch.row("a.csv")
    assert (row.version, row.state, row.generation) == (str(touched.version), State.SENT, 1)
    assert memory_of(*touched) in arrivals.settled


async def test_a_file_that_changed_a_moment_ago_waits(watched: Make) -> None:
    watch = watched(ready="stable", stable_seconds=3600)
    waiting = UnreadyFiles(limit=10)
    arrivals = watch.arrivals(waiting=waiting)
    assert await arrivals.consider([watch.put("a.csv")]) == 0
    assert waiting.summary(0)["for"] == {CHANGING: 1}
    assert waiting.scheduled(b"a.csv")
    assert (await watch.announced(), arrivals.settled) == ([], set())


async def test_the_times_of_a_foreign_clock_say_nothing(watched: Make) -> None:
    watch = watched(ready="stable", stable_seconds=0.05)
    found = watch.put("a.csv")
    assert await eventually(lambda: watch.arrivals().consider([found]), what="it has been left alone for so long") == 1
    watch.put("a.csv", "other")
    os.utime(watch.path / "a.csv", ns=(0, 0))
    assert await watch.arrivals(trust_clock=lambda: False).consider([watch.found("a.csv")]) == 0


async def test_a_file_waits_for_its_marker(watched: Make) -> None:
    watch = watched(ready="marker")
    waiting = UnreadyFiles(limit=10)
    arrivals, found = watch.arrivals(waiting=waiting), watch.put("a.csv")
    assert await arrivals.consider([found]) == 0
    assert waiting.summary(0)["for"] == {NO_MARKER: 1}
    watch.put("a.csv.done", "")
    assert await arrivals.consider([found]) == 1
    assert len(waiting) == 0


async def test_a_file_that_is_gone_again_is_forgotten(watched: Make) -> None:
    watch = watched(ready="stable", stable_seconds=3600)
    waiting = UnreadyFiles(limit=10)
    arrivals, found = watch.arrivals(waiting=waiting), watch.put("a.csv")
    await arrivals.consider([found])
    (watch.path / "a.csv").unlink()
    assert await arrivals.consider([found]) == 0
    assert b"a.csv" not in waiting


async def test_a_large_file_is_read_beside_the_others_and_then_announced(watched: Make) -> None:
    watch = watched(sha256="always")
    waiting = UnreadyFiles(limit=10)
    arrivals = watch.arrivals(waiting=waiting)
    large, small = watch.put("large.csv", "x" * (4 * 1024 * 1024 + 1)), watch.put("small.csv")
    assert await arrivals.consider([large, small]) == 1
    await eventually(lambda: _is_scheduled(waiting, b"large.csv"), what="the file was read")
    assert await arrivals.consider([large]) == 1
    assert len((await watch.announced())[1].data["sha256"]) == 64
    await arrivals.close()


async def _is_scheduled(waiting: UnreadyFiles, path: bytes) -> bool:
    return waiting.scheduled(path)


async def test_content_that_ran_before_gets_no_event_where_that_is_wanted(watched: Make) -> None:
    watch = watched(rerun="content", on_success="keep")
    arrivals = watch.arrivals()
    await arrivals.consider([watch.put("a.csv")])
    (event,) = await watch.announced()
    await watch.finish(event.id)
    await watch.archive()
    (watch.path / "a.csv").unlink()
    again = watch.put("a.csv")
    assert await arrivals.consider([again]) == 0
    assert len(await watch.announced()) == 1


async def test_what_is_forgotten_meanwhile_is_not_remembered(watched: Make) -> None:
    watch = watched()
    arrivals: Arrivals = watch.arrivals(trust_clock=lambda: arrivals.forget_settled() is None)
    found = watch.put("a.csv")
    assert await arrivals.consider([found]) == 1
    assert arrivals.settled == set()
    assert await arrivals.consider([found]) == 0
    assert arrivals.settled == {memory_of(*found)}


@pytest.mark.parametrize("name", [b"caf\xe9.csv", "\u540d \u524d.csv".encode(), b"a\nb.csv"])
async def test_any_name_is_announced(watched: Make, name: bytes) -> None:
    watch = watched()
    assert await watch.arrivals().consider([watch.put(name)]) == 1
    (event,) = await watch.announced()
    with open(event.data["path"]) as file:
        assert file.read() == "x"
