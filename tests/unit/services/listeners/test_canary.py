"""A canary that does not come through names the step, flies in one instance at a time, and leaves nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from config.canary import canary_rules, canary_watch
from config.health import CANARY, CanarySettings
from config.settings import FileSettings, HistorySettings, JournalSettings
from events.rule import evaluate
from services.listeners.canary import Canary
from services.store.canary.flights import REMAINS, STATE, CanaryFlight, CanaryRecords, Remains
from services.store.connection import AsyncRedis
from services.store.events.history import HISTORY, History
from services.store.events.journal import Journal
from services.store.events.known_events import KNOWN
from services.store.files.ledger import Ledger
from tests.support.waiting import eventually
from tests.unit.services.store.making import event

SETTINGS = CanarySettings(enabled=True, interval_seconds=600, timeout_seconds=1)


@pytest.fixture
def canary(redis: AsyncRedis, tmp_path: Path) -> Callable[[str], Canary]:
    def made(instance: str) -> Canary:
        return Canary(
            settings=SETTINGS,
            redis=redis,
            home=tmp_path / instance,
            ledger=Ledger(redis, JournalSettings(), FileSettings()),
            history=History(redis, HistorySettings()),
            instance=instance,
        )

    return made


@contextlib.asynccontextmanager
async def flying(*canaries: Canary) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(one.run()) for one in canaries]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_where_nobody_announces_its_file_the_first_step_has_failed_and_the_file_is_gone(
    redis: AsyncRedis, canary: Callable[[str], Canary], tmp_path: Path
) -> None:
    async with flying(canary("one"), canary("two")):
        flight = await eventually(CanaryRecords(redis).last, what="the end of the flight")
    assert (flight.failed, flight.seconds) == ("arrive", {})
    other = {"one": "two", "two": "one"}[flight.instance]
    assert list((tmp_path / flight.instance / "canary").iterdir()) == []
    assert not (tmp_path / other / "canary").exists()


async def test_what_a_flight_leaves_is_deleted_and_nothing_else(redis: AsyncRedis) -> None:
    journal = Journal(redis, JournalSettings())
    ours, users = event("c1"), event("e1")
    one, other = await journal.append([ours, users], received=datetime.now(UTC).isoformat())
    for found in (ours, users):
        await redis.rpush(HISTORY + found.identity, "[]")
    records = CanaryRecords(redis)
    await records.leave(
        Remains(signal_id="s1", rule=CANARY, identity=ours.identity, position=one.position, run_ids=["r1"])
    )
    remains = await records.take_remains()
    assert remains is not None
    await records.forget(remains)
    assert await records.take_remains() is None
    assert list(await journal.fetch([one.position, other.position])) == [other.position]
    assert not await redis.exists(KNOWN + ours.identity, HISTORY + ours.identity, REMAINS, STATE)
    assert await redis.exists(KNOWN + users.identity, HISTORY + users.identity) == 2


def test_a_flight_is_read_as_it_was_written() -> None:
    flight = CanaryFlight(
        at=1.5, failed="run", seconds={"arrive": 0.1, "rule": 0.2}, instance="one", run_id="r", event_id="e"
    )
    assert CanaryFlight.model_validate_json(flight.model_dump_json()) == flight
    assert round(flight.total_seconds, 1) == 0.3


def test_each_home_has_a_watch_of_its_own_and_the_rule_is_for_its_events_only(tmp_path: Path) -> None:
    (one,), (other,) = canary_watch(tmp_path / "one"), canary_watch(tmp_path / "two")
    assert one != other
    (verdict,) = evaluate(canary_rules(SETTINGS, project="shop"), event("e1"))
    assert (verdict.rule, verdict.matched) == (CANARY, False)
