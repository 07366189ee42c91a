"""The runs that Sluice created, as the tracker of their states reads them."""

from __future__ import annotations

import json

import pytest

from services.store.connection import AsyncRedis
from services.store.runs.created_runs import CONTACT, RUN, RUNS, CreatedRuns
from services.store.unreadable import UnreadableKey, noted

R1 = "00000001-0000-4000-8000-000000000000"
R2 = "00000002-0000-4000-8000-000000000000"
FIELDS = {"e": json.dumps([["a@x", "1-0"], ["b@x", "2-0"]]), "r": "pay", "d": "flow/d", "t": "pay#0"}


@pytest.fixture
def runs(redis: AsyncRedis) -> CreatedRuns:
    return CreatedRuns(redis)


async def test_a_run_is_read_with_its_events_and_its_last_state(redis: AsyncRedis, runs: CreatedRuns) -> None:
    await redis.hset(RUN + R1, mapping=FIELDS)
    found = await runs.get(R1)
    assert found is not None
    assert found.events == (("a@x", "1-0"), ("b@x", "2-0"))
    assert (found.rule, found.deployment, found.token) == ("pay", "flow/d", "pay#0")
    assert (found.state, found.state_ms) == (None, 0)
    await redis.hset(RUN + R1, "s", "1767000000000 RUNNING")
    found = await runs.get(R1)
    assert found is not None
    assert (found.state, found.state_ms) == ("RUNNING", 1_767_000_000_000)
    assert await runs.get(R2) is None


@pytest.mark.parametrize(
    "garbage",
    [{"e": "no json"}, {"e": '[["a@x"]]'}, {"e": '[["a@x", "x"]]'}, {"s": "soon"}, {"s": "1 running"}, {"r": b"\xff"}],
)
async def test_a_record_that_cannot_be_read_is_noted_and_asked_for_again(
    redis: AsyncRedis, runs: CreatedRuns, garbage: dict[str, str]
) -> None:
    noted.take()
    await redis.hset(RUN + R1, mapping={**FIELDS, **garbage})
    with pytest.raises(UnreadableKey):
        await runs.get(R1)
    assert noted.take()[0] == {f"{RUN}{R1}".encode()}


async def test_runs_are_due_the_most_overdue_first_and_only_open_ones_again(
    redis: AsyncRedis, runs: CreatedRuns
) -> None:
    await redis.zadd(RUNS, {R1: 2000, R2: 1000, "garbage": 500})
    assert await runs.due(999, limit=10) == []
    assert await runs.due(2000, limit=10) == [R2, R1]
    assert await runs.due(5000, limit=2) == [R2]
    await redis.zrem(RUNS, R1)
    await runs.ask_again([R1, R2], at_ms=9000)
    await runs.ask_again([], at_ms=1)
    assert await runs.due(8999, limit=10) == []
    assert await runs.due(9000, limit=10) == [R2], "a run that has ended meanwhile is not opened again"
    assert await runs.open_count() == 2, "garbage counts until it is taken out"


async def test_the_last_contact_is_kept_and_garbage_is_not_taken_for_one(redis: AsyncRedis, runs: CreatedRuns) -> None:
    assert await runs.last_contact() is None
    await runs.contact(1_767_000_000.5)
    assert await runs.last_contact() == 1_767_000_000.5
    for garbage in ("soon", "1e300", "nan"):
        await redis.set(CONTACT, garbage)
        with pytest.raises(UnreadableKey):
            await runs.last_contact()
