"""Cases 47 to 50 of the catalogue: processes that die, servers that restart, listeners side by side."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest

from config.settings import FileSettings, JournalSettings, RedisSettings
from config.sources import FilesSource
from services.listeners.files.listener import FilesListener
from services.local.embedded_servers import claim_port, start_valkey
from services.store.connection import AsyncRedis, connect
from services.store.files.ledger import Ledger
from tests.integration.files.conftest import QUICK, Watched
from tests.integration.files.listening import Listening
from tests.integration.files.writers import Writer
from tests.support.waiting import eventually

SETTINGS = QUICK.model_dump()
FILES = 20


def _fill(box: Path) -> None:
    for number in range(FILES):
        (box / f"{number}.csv").write_text(f"content of {number}")


def _contents(folder: Path) -> dict[str, str]:
    if not folder.is_dir():
        return {}
    return {path.name: path.read_text() for path in folder.iterdir() if path.suffix == ".csv"}


EXPECTED = {f"{number}.csv": f"content of {number}" for number in range(FILES)}


@pytest.mark.parametrize(("kill_at", "after"), [("seen", 0), ("seen", 1), ("journalled", 1), ("swept", 0)])
async def test_case_47_killed_while_announcing_each_file_is_announced_once(
    watched: Watched, redis: AsyncRedis, valkey_url: str, tmp_path: Path, kill_at: str, after: int
) -> None:
    watches = {"inbox": {"path": str(watched.path)}}
    settings = SETTINGS | {"batch": 7}
    _fill(watched.path)
    with Listening(redis, valkey_url, watches, settings, log=tmp_path / "log", kill_at=kill_at, after=after) as one:
        await one.killed()
    with Listening(redis, valkey_url, watches, settings, log=tmp_path / "log") as other:
        await other.scanned()
        await watched.exactly(FILES)


@pytest.mark.parametrize(
    ("kill_at", "ok"),
    [
        ("noted", False),
        ("acknowledged", False),
        ("reserved", False),
        ("staged", False),
        ("staged", True),
        ("moved", False),
        ("moved", True),
        ("kept", False),
        ("settled", True),
    ],
)
async def test_case_47_killed_while_putting_away_each_file_runs_once_and_comes_to_its_place(
    watched: Watched, redis: AsyncRedis, valkey_url: str, tmp_path: Path, kill_at: str, *, ok: bool
) -> None:
    watches = {"inbox": {"path": str(watched.path)}}
    _fill(watched.path)
    with Listening(redis, valkey_url, watches, SETTINGS, log=tmp_path / "log", kill_at=kill_at) as one:
        for event in await watched.arrived(FILES):
            await watched.finish(event, ok=ok)
        await one.killed()
    for name, content in EXPECTED.items():
        held = [path for path in watched.path.rglob("*") if path.is_file() and path.read_text() == content]
        assert len(held) == 1, (name, held)
    with Listening(redis, valkey_url, watches, SETTINGS, log=tmp_path / "log") as other:
        await _all_settled(watched, other, ok=ok)
        folder = watched.path / ("done" if ok else "failed")
        assert _contents(folder) == EXPECTED
        sidecars = {path.name for path in folder.iterdir() if path.name.endswith(".error.json")}
        assert sidecars == (set() if ok else {f"{name}.error.json" for name in EXPECTED})
        await other.scanned()
        assert len(await watched.events()) == FILES
    left = [path for path in watched.path.rglob("*") if path.name.startswith(".sluice")]
    assert not [path for path in left if "moving" in path.name or "draft" in path.name]


async def _all_settled(watched: Watched, listening: Listening, *, ok: bool) -> None:
    ledger = watched.ledger()

    async def settled() -> bool:
        assert listening.process.poll() is None, listening.log.read_text()
        return (await ledger.numbers("inbox"))["in_flight"] == 0

    # What the dead process read and did not acknowledge is claimed when it has been silent for long enough.
    await eventually(settled, what="the end of what was in flight")
    assert (await ledger.numbers("inbox"))["done" if ok else "failed"] == FILES


@pytest.mark.parametrize(
    ("on_success", "kill_at"), [("delete", "staged"), ("delete", "deleted"), ("keep", "acknowledged")]
)
async def test_case_47_killed_while_deleting_or_keeping_each_file_runs_once(
    watched: Watched, redis: AsyncRedis, valkey_url: str, tmp_path: Path, on_success: str, kill_at: str
) -> None:
    keeps = on_success == "keep"
    watches = {"inbox": {"path": str(watched.path), "on_success": on_success}}
    _fill(watched.path)
    with Listening(redis, valkey_url, watches, SETTINGS, log=tmp_path / "log", kill_at=kill_at) as one:
        for event in await watched.arrived(FILES):
            await watched.finish(event)
        await one.killed()
    with Listening(redis, valkey_url, watches, SETTINGS, log=tmp_path / "log") as other:
        await _all_settled(watched, other, ok=True)
        assert _contents(watched.path) == (EXPECTED if keeps else {})
        await other.scanned()
        assert len(await watched.events()) == FILES


async def test_case_47_killed_at_any_moment_again_and_again_each_file_runs_once(
    watched: Watched, redis: AsyncRedis, valkey_url: str, tmp_path: Path
) -> None:
    watches = {"inbox": {"path": str(watched.path)}}
    count, rounds = 160, 4

    async def pipeline() -> None:
        done = 0
        while done < count:
            for event in (await watched.events())[done:]:
                await watched.finish(event)
                done += 1
            await asyncio.sleep(0.02)

    finishing = asyncio.create_task(pipeline())
    dropped = 0
    for round_ in range(rounds):
        with Listening(redis, valkey_url, watches, SETTINGS | {"batch": 10}, log=tmp_path / "log") as one:
            for _ in range(count // rounds):
                (watched.path / f"{dropped}.csv").write_text(f"content of {dropped}")
                dropped += 1
            enough = dropped - count // rounds // 2 + round_

            async def some(enough: int = enough) -> bool:
                return await redis.xlen("sluice:journal") >= enough

            await eventually(some, what="some events")
            os.kill(one.process.pid, signal.SIGKILL)
    with Listening(redis, valkey_url, watches, SETTINGS, log=tmp_path / "log") as last:
        await finishing
        ledger = watched.ledger()

        async def settled() -> bool:
            assert last.process.poll() is None, last.log.read_text()
            return (await ledger.numbers("inbox")).get("done") == count

        await eventually(settled, what="the end of everything")
    assert _contents(watched.path / "done") == {f"{number}.csv": f"content of {number}" for number in range(count)}
    subjects = await watched.subjects()
    assert sorted(subjects) == sorted(f"{number}.csv" for number in range(count))


async def test_case_48_a_restart_of_redis_in_the_middle_of_a_burst_loses_nothing(tmp_path: Path) -> None:
    box = tmp_path / "inbox"
    box.mkdir()
    port = claim_port(0, "a free port")
    home = tmp_path / "valkey"
    server, url = start_valkey(home, port, RedisSettings(), log_file=tmp_path / "valkey.log")
    redis = connect(url, RedisSettings())
    listener = FilesListener(
        name="inbox",
        source=FilesSource(path=box),
        settings=QUICK,
        ledger=Ledger(redis, JournalSettings(), QUICK),
    )
    running = asyncio.create_task(listener.run())
    count = 3000
    try:
        with Writer() as writer:
            writer.start(
                """
                import time
                for number in range(count):
                    with open(f"{path}/{number}.csv", "w") as f: f.write("x")
                    if number % 10 == 0: time.sleep(0.005)
                """,
                path=str(box),
                count=count,
            )

            async def begun() -> bool:
                return await redis.xlen("sluice:journal") > count // 10

            await eventually(begun, what="the first events")
            server.process.kill()
            server.process.wait()
            await asyncio.sleep(0.3)  # how long it is away
            server, _ = await asyncio.to_thread(
                start_valkey, home, port, RedisSettings(), log_file=tmp_path / "valkey.log"
            )
            await asyncio.to_thread(writer.wait)

        async def complete() -> bool:
            return await redis.xlen("sluice:journal") >= count

        await eventually(complete, what="all events")
        scan = listener.status()["last_full_scan"]
        listener.rescan()

        async def again() -> bool:
            return listener.status()["last_full_scan"] != scan

        await eventually(again, what="a further scan")
        entries = await redis.xrange("sluice:journal")
        subjects = [json.loads(fields[b"event"])["subject"] for _, fields in entries]
        assert sorted(subjects) == sorted(f"{number}.csv" for number in range(count))
        assert "degraded" not in listener.status()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await redis.aclose()
        server.stop()


async def test_case_48_a_redis_that_lost_its_memory_gets_the_files_again(watched: Watched, redis: AsyncRedis) -> None:
    await watched.listen()
    (watched.path / "a.csv").write_text("x")
    await watched.exactly(1)
    await redis.flushdb()
    await watched.scanned()
    await watched.exactly(1)


async def test_case_49_two_instances_on_one_folder_make_one_event_of_each_file(
    watched: Watched, redis: AsyncRedis, valkey_url: str, tmp_path: Path
) -> None:
    watches = {"inbox": {"path": str(watched.path)}}
    count = 1000
    with (
        Listening(redis, valkey_url, watches, SETTINGS, log=tmp_path / "log") as one,
        Listening(redis, valkey_url, watches, SETTINGS, log=tmp_path / "log") as other,
        Writer() as writer,
    ):
        await one.scanned()
        await other.scanned()
        writer.start(
            """
            for number in range(count):
                with open(f"{path}/{number}.csv", "w") as f: f.write("x")
            """,
            path=str(watched.path),
            count=count,
        )
        events = await watched.arrived(count)
        for event in events:
            await watched.finish(event)
        await _all_done(watched, count)
        assert len(list((watched.path / "done").iterdir())) == count
        for each in (one, other):
            assert each.process.poll() is None
        assert len(await watched.events()) == count


async def _all_done(watched: Watched, count: int) -> None:
    ledger = watched.ledger()

    async def done() -> bool:
        return (await ledger.numbers("inbox")).get("done") == count

    await eventually(done, what="all files put away")


async def test_case_50_nested_watches_each_announce_a_file_once(watched: Watched) -> None:
    inner = watched.path / "inner"
    inner.mkdir()
    keep = {"on_success": "keep", "on_failure": "keep"}
    await watched.listen("outer", **keep)
    await watched.listen("inner", path=inner, **keep)
    (inner / "a.csv").write_text("x")
    (watched.path / "b.csv").write_text("x")
    events = await watched.exactly(3)
    assert sorted((event["source"], event["subject"]) for event in events) == [
        ("files/inner", "a.csv"),
        ("files/outer", "b.csv"),
        ("files/outer", "inner/a.csv"),
    ]
    assert len({event["id"] for event in events}) == 3


async def test_an_instance_that_slept_through_a_files_whole_life_does_not_announce_it_again(
    watched: Watched, redis: AsyncRedis
) -> None:
    ledger = watched.ledger()
    asleep = asyncio.Event()
    wake = asyncio.Event()

    class Sleepy(Ledger):
        async def announce(self, *arguments: object, **options: object) -> object:  # type: ignore[override]
            asleep.set()
            await wake.wait()
            return await super().announce(*arguments, **options)

    sleeper = FilesListener(
        name="inbox",
        source=FilesSource(path=watched.path),
        settings=QUICK,
        ledger=Sleepy(redis, JournalSettings(), FileSettings()),
    )
    (watched.path / "a.csv").write_text("x")
    running = asyncio.create_task(sleeper.run())
    await asleep.wait()
    await watched.listen()
    watched.archive()
    (event,) = await watched.arrived(1)
    await watched.finish(event)
    await watched.settled()
    wake.set()
    await watched.exactly(1)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert (await ledger.numbers("inbox"))["in_flight"] == 0
