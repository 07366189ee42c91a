"""What is recorded of the canary's flights, and how what they leave is forgotten without touching anything else."""

from __future__ import annotations

import pytest

from config.settings import HistorySettings, JournalSettings
from services.store.canary.flights import CANARY_STEPS, REMAINS, STATE, CanaryFlight, CanaryRecords, Remains
from services.store.connection import AsyncRedis
from services.store.event_transitions import EventTransitions, Made
from services.store.events.history import History, Query
from services.store.events.journal import Journal
from services.store.runs.created_runs import CreatedRuns
from services.store.unreadable import noted
from tests.unit.services.store.making import dispatch, event, name, pending, routed

FLIGHT = CanaryFlight(at=1.0, failed=None, seconds={"arrive": 0.25, "rule": 0.5}, instance="one")
R1 = "00000001-0000-4000-8000-000000000000"


@pytest.fixture
def records(redis: AsyncRedis) -> CanaryRecords:
    return CanaryRecords(redis)


async def test_the_last_flight_is_the_one_that_ended_last(redis: AsyncRedis, records: CanaryRecords) -> None:
    assert await records.last() is None
    await records.ended(FLIGHT)
    failed = FLIGHT.model_copy(update={"failed": "rule"})
    await records.ended(failed)
    assert await records.last() == failed
    noted.take()
    await redis.set(STATE, "garbage")
    assert await records.last() is None
    assert noted.take()[0] == {STATE.encode()}


def test_a_flight_is_shown_with_its_whole_time() -> None:
    assert FLIGHT.shown()["total_seconds"] == 0.75
    assert set(FLIGHT.shown()) >= {"at", "failed", "seconds", "instance", "run_id", "event_id"}


def test_every_step_says_what_did_not_happen_and_who_should_have_done_it() -> None:
    assert next(iter(CANARY_STEPS)) == "arrive"
    parts = ("listeners", "router", "executor", "resumer", "Prefect", "Redis")
    assert all(any(part in said.rpartition(" (")[2] for part in parts) for said in CANARY_STEPS.values())


async def test_remains_are_taken_once_in_order(redis: AsyncRedis, records: CanaryRecords) -> None:
    first, second = Remains(signal_id="s1", rule="canary"), Remains(signal_id="s2", rule="canary", run_ids=[R1])
    await records.leave(first)
    await redis.rpush(REMAINS, "garbage")
    await records.leave(second)
    assert await records.take_remains() == first
    assert await records.take_remains() is None, "garbage, which is taken out"
    assert await records.take_remains() == second
    assert await records.take_remains() is None


async def test_what_a_flight_left_is_forgotten_and_nothing_else(redis: AsyncRedis, records: CanaryRecords) -> None:
    journal, history = Journal(redis, JournalSettings()), History(redis, HistorySettings())
    positions = await pending(journal, event("flight"), event("other"))
    moves = EventTransitions(redis, retention_seconds=60)
    for id_, at in zip(("flight", "other"), positions, strict=True):
        run_id = R1 if id_ == "flight" else R1.replace("1", "2")
        made = dispatch(event(id_), at, rule="canary")
        await moves.route([routed(id_, at, matched=["canary"], dispatches=[made])])
        await moves.created([Made("0-1", made, run_id)])
    remains = Remains(signal_id="s1", rule="canary", identity=name("flight"), position=positions[0], run_ids=[R1])
    await records.forget(remains)
    await records.forget(remains)
    assert await history.get(name("flight")) is None
    assert await CreatedRuns(redis).get(R1) is None
    assert [one.id for one in await history.search(Query(rule="canary"), limit=9)] == ["other"]
    assert list(await journal.fetch(positions)) == [positions[1]]
    assert await CreatedRuns(redis).get(R1.replace("1", "2")) is not None


async def test_a_flight_without_an_event_leaves_only_its_signal(redis: AsyncRedis, records: CanaryRecords) -> None:
    await redis.hset("sluice:signal:s1", "status", "received")
    await redis.zadd("sluice:signals:index", {"s1": 1})
    await records.forget(Remains(signal_id="s1", rule="canary"))
    assert await redis.exists("sluice:signal:s1", "sluice:signals:index") == 0
