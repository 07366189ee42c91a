"""A full scan announces what it finds, and closes the rows of what is gone, if the folder is the one it was."""

from __future__ import annotations

from collections.abc import Callable

from services.listeners.files.scanning.scan import memory_of
from services.store.connection import AsyncRedis
from services.store.files.ledger_rows import State
from tests.unit.services.listeners.files.watched import Watched

Make = Callable[..., Watched]


async def archived(watch: Watched) -> None:
    """All events have ended well."""
    for event in await watch.announced():
        await watch.finish(event.id)
    await watch.archive()


async def test_a_scan_announces_what_is_there_once(watched: Make) -> None:
    watch = watched()
    scan = watch.full_scan(watch.arrivals())
    for name in ("a.csv", "deep/b.csv"):
        watch.put(name)
    first, second = await scan.sweep(), await scan.sweep()
    assert (first.healthy, first.events, first.report.files) == (True, 2, 2)
    assert (second.healthy, second.events, second.report.files) == (True, 0, 2)
    assert len(await watch.announced()) == 2


async def test_more_files_than_one_step_takes_are_all_found(watched: Make) -> None:
    watch = watched()
    watch.settings = watch.settings.model_copy(update={"batch": 2})
    small = Watched(watch.path, watch.redis, settings=watch.settings)
    for number in range(7):
        small.put(f"{number}.csv")
    assert (await small.full_scan(small.arrivals()).sweep()).events == 7
    small.close()


async def test_a_folder_that_is_not_there_says_nothing_of_its_files(watched: Make) -> None:
    watch = watched()
    scan = watch.full_scan(watch.arrivals())
    watch.put("a.csv")
    await scan.sweep()
    watch.path.rename(watch.path.with_name("other"))
    found = await scan.sweep()
    assert (found.healthy, found.events) == (False, 0)
    assert (await watch.row("a.csv")).state is State.SENT


async def test_the_row_of_a_file_that_is_gone_is_closed_and_the_file_is_new_when_it_comes_back(watched: Make) -> None:
    watch = watched(on_success="keep")
    arrivals = watch.arrivals()
    scan = watch.full_scan(arrivals)
    found = watch.put("a.csv")
    await scan.sweep()
    await archived(watch)
    (watch.path / "a.csv").rename(watch.path.with_name("a.csv"))
    await scan.sweep()
    assert (await watch.row("a.csv")).state is State.CLOSED
    assert memory_of(*found) not in arrivals.settled
    watch.path.with_name("a.csv").rename(watch.path / "a.csv")
    assert (await scan.sweep()).events == 1


async def test_a_file_in_flight_that_is_gone_keeps_its_row(watched: Make) -> None:
    watch = watched()
    scan = watch.full_scan(watch.arrivals())
    watch.put("a.csv")
    await scan.sweep()
    (watch.path / "a.csv").unlink()
    await scan.sweep()
    assert (await watch.row("a.csv")).state is State.SENT


async def test_in_another_folder_at_the_same_path_nothing_counts_as_deleted(watched: Make) -> None:
    watch = watched(on_success="keep")
    scan = watch.full_scan(watch.arrivals())
    watch.put("a.csv")
    await scan.sweep()
    await archived(watch)
    watch.path.rename(watch.path.with_name("away"))
    watch.path.mkdir()
    watch.put("b.csv")
    found = await scan.sweep()
    assert (found.healthy, found.events, scan.confirmed) == (True, 1, None)
    row = await watch.row("a.csv")
    assert row.state is State.DONE
    assert await scan.close_rows({b"a.csv": row}) == 0
    watch.path.rename(watch.path.with_name("third"))
    watch.path.with_name("away").rename(watch.path)
    await scan.sweep()
    assert scan.confirmed is not None
    assert (await watch.row("a.csv")).state is State.DONE


async def test_only_files_that_are_gone_are_closed(watched: Make) -> None:
    watch = watched(on_success="keep")
    scan = watch.full_scan(watch.arrivals())
    for name in ("a.csv", "b.csv"):
        watch.put(name)
    await scan.sweep()
    await archived(watch)
    (watch.path / "a.csv").unlink()
    rows = {name.encode(): await watch.row(name) for name in ("a.csv", "b.csv")}
    assert await scan.close_rows(rows) == 1
    assert [(await watch.row(name)).state for name in ("a.csv", "b.csv")] == [State.CLOSED, State.DONE]


async def test_a_redis_that_lost_its_memory_gets_the_files_again(watched: Make, redis: AsyncRedis) -> None:
    watch = watched()
    scan = watch.full_scan(watch.arrivals())
    watch.put("a.csv")
    await scan.sweep()
    await scan.sweep()
    await redis.flushdb()
    assert (await scan.sweep()).events == 1
    assert len(await watch.announced()) == 1


async def test_a_part_of_the_watch_is_scanned_alone(watched: Make) -> None:
    watch = watched()
    for name in ("a.csv", "deep/b.csv", "deep/er/c.csv"):
        watch.put(name)
    report, events, _ = await watch.full_scan(watch.arrivals()).explore(b"deep")
    assert (report.complete, events) == (True, 2)
    assert sorted(event.subject or "" for event in await watch.announced()) == ["deep/b.csv", "deep/er/c.csv"]
