"""Writers of SQLite take turns, and nothing is left open on a connection."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest
import pytest_asyncio
from prefect.server.database.configurations import AioSqliteConfiguration
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from services.local import sqlite_turns

BUSY_SECONDS = 3.0


@pytest.fixture(scope="module", autouse=True)
def _installed() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite_turns, "HAS_CONCAT", (99,))  # ours, also where SQLite has one
        sqlite_turns.install()
        yield


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "test.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE lines (number INTEGER PRIMARY KEY, who TEXT)")
    return path


@pytest.fixture
def config(database: Path) -> AioSqliteConfiguration:
    return AioSqliteConfiguration(f"sqlite+aiosqlite:///{database}", timeout=BUSY_SECONDS)


@pytest_asyncio.fixture
async def engine(config: AioSqliteConfiguration) -> AsyncIterator[AsyncEngine]:
    """Prefect's own engine."""
    engine = await config.engine()
    yield engine
    await engine.dispose()


def lines(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        return [who for (who,) in connection.execute("SELECT who FROM lines ORDER BY number")]


class Writers:
    """Sessions as Prefect's server has them."""

    def __init__(self, config: AioSqliteConfiguration, engine: AsyncEngine) -> None:
        self._config = config
        self._engine = engine
        self.go_on = asyncio.Event()

    async def in_a_transaction(self, who: str, *, waits: bool = False) -> None:
        async with AsyncSession(self._engine) as session, self._config.begin_transaction(session):
            await session.execute(text("SELECT count(*) FROM lines"))
            if waits:
                await self.go_on.wait()
            await session.execute(text("INSERT INTO lines (who) VALUES (:who)"), {"who": who})

    async def count(self) -> int:
        async with AsyncSession(self._engine) as session:
            counted = "WITH named AS (SELECT number AS updated FROM lines) SELECT count(*) FROM named"
            return int((await session.execute(text(counted))).scalar_one())

    async def in_a_transaction_that_fails(self) -> None:
        async with AsyncSession(self._engine) as session, self._config.begin_transaction(session):
            await session.execute(text("INSERT INTO lines VALUES (1, 'lost')"))
            await session.execute(text("INSERT INTO lines VALUES (1, 'twice')"))

    async def without_one(self, *names: str) -> None:
        rows = [{"who": who} for who in names]
        async with AsyncSession(self._engine) as session:
            await session.execute(text("INSERT INTO lines (who) VALUES (:who)"), rows if len(rows) > 1 else rows[0])


@pytest.fixture
def writers(config: AioSqliteConfiguration, engine: AsyncEngine) -> Writers:
    return Writers(config, engine)


async def started(*tasks: asyncio.Task[None]) -> None:
    """Time enough for each to come to where it waits."""
    await asyncio.sleep(0.2)  # none is to come further
    assert not any(task.done() for task in tasks)


async def test_transactions_that_read_and_then_write_are_all_done_in_the_order_in_which_they_came(
    writers: Writers, database: Path
) -> None:
    names = [str(number) for number in range(60)]  # more than there are connections
    await asyncio.gather(*(writers.in_a_transaction(name) for name in names))
    assert lines(database) == names


@pytest.mark.parametrize("rows", [("second",), ("second", "as well")])
async def test_a_statement_outside_of_a_transaction_waits_for_its_turn_too(
    writers: Writers, database: Path, rows: tuple[str, ...]
) -> None:
    first = asyncio.create_task(writers.in_a_transaction("first", waits=True))
    await started(first)
    second = asyncio.create_task(writers.without_one(*rows))
    await started(second)
    third = asyncio.create_task(writers.in_a_transaction("third"))
    await started(third)
    writers.go_on.set()
    await asyncio.gather(first, second, third)
    assert lines(database) == ["first", *rows, "third"]


async def test_who_only_reads_does_not_wait(writers: Writers) -> None:
    first = asyncio.create_task(writers.in_a_transaction("first", waits=True))
    await started(first)
    assert await asyncio.wait_for(writers.count(), BUSY_SECONDS) == 0
    writers.go_on.set()
    await first
    assert await writers.count() == 1


async def test_nobody_else_writes_between_what_a_transaction_reads_and_what_it_writes(
    writers: Writers, database: Path
) -> None:
    first = asyncio.create_task(writers.in_a_transaction("first", waits=True))
    await started(first)
    with (
        closing(sqlite3.connect(database, timeout=0)) as other,
        pytest.raises(sqlite3.OperationalError, match="locked"),
    ):
        other.execute("INSERT INTO lines (who) VALUES ('between')")
    writers.go_on.set()
    await first
    assert lines(database) == ["first"]


async def test_who_gives_up_waiting_is_in_nobodys_way(writers: Writers, database: Path) -> None:
    first = asyncio.create_task(writers.in_a_transaction("first", waits=True))
    await started(first)
    impatient = asyncio.create_task(writers.in_a_transaction("impatient"))
    third = asyncio.create_task(writers.in_a_transaction("third"))
    await started(impatient, third)
    impatient.cancel()
    writers.go_on.set()
    await asyncio.gather(first, third)
    assert lines(database) == ["first", "third"]


async def test_who_waits_too_long_is_told_that_the_database_is_locked(
    writers: Writers, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_turns, "LONGEST_TURN_SECONDS", 0.3)
    first = asyncio.create_task(writers.in_a_transaction("first", waits=True))
    await started(first)
    with pytest.raises(OperationalError, match="database is locked"):
        await writers.in_a_transaction("late")
    with pytest.raises(OperationalError, match="database is locked"):
        await writers.without_one("late")
    writers.go_on.set()
    await first
    await writers.in_a_transaction("next")
    assert lines(database) == ["first", "next"]


async def test_a_transaction_that_fails_passes_its_turn_on(writers: Writers, database: Path) -> None:
    with pytest.raises(IntegrityError):
        await writers.in_a_transaction_that_fails()
    await asyncio.wait_for(writers.in_a_transaction("next"), BUSY_SECONDS)
    assert lines(database) == ["next"]


async def test_the_garbage_of_a_refused_statement_does_not_make_the_event_loop_wait(
    engine: AsyncEngine, database: Path
) -> None:
    async with engine.connect() as connection:
        await connection.exec_driver_sql("INSERT INTO lines VALUES (1, 'there')")
        with pytest.raises(IntegrityError) as refused:
            await connection.exec_driver_sql("INSERT INTO lines VALUES (1, 'again')")
        with closing(sqlite3.connect(database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            waiting = asyncio.create_task(connection.exec_driver_sql("BEGIN IMMEDIATE"))
            await started(waiting)
            del refused
            gc.collect()
            await started(waiting)  # otherwise the search has lasted until SQLite gave up
            other.execute("ROLLBACK")
        await waiting


async def test_a_statement_outside_of_a_transaction_leaves_none_open_on_the_connection_of_a_migration(
    engine: AsyncEngine, database: Path
) -> None:
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="SERIALIZABLE")
    async with engine.connect() as connection:
        await connection.exec_driver_sql("INSERT INTO lines VALUES (1, 'done')")
        assert lines(database) == ["done"]


async def test_an_sqlite_without_concat_is_given_it(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        found = await connection.exec_driver_sql("SELECT concat('pump ', 17, NULL, '!')")
    assert found.scalar_one() == "pump 17!"
