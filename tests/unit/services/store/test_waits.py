"""What is remembered of waiting runs: found by key, replaced by the next wait, and gone with the last."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from services.store.connection import AsyncRedis
from services.store.waits import Waits

NOW = datetime(2026, 1, 2, tzinfo=UTC)


@dataclass(frozen=True)
class Run:
    run_id: str
    wait_id: str
    keys: tuple[str, ...] = ()
    deadline: datetime | None = None
    reminder: datetime | None = None
    suspended: bool = False

    @property
    def memo(self) -> str:
        return f"memo of {self.run_id} in {self.wait_id}{' without a process' if self.suspended else ''}"


@pytest.fixture
def waits(redis: AsyncRedis) -> Waits:
    return Waits(redis)


async def test_runs_are_found_by_every_key_that_they_wait_for(waits: Waits) -> None:
    await waits.began([Run("r1", "s1", ("a", "b")), Run("r2", "s2", ("b",))])
    assert await waits.memos_for("a") == ["memo of r1 in s1"]
    assert sorted(await waits.memos_for("b")) == ["memo of r1 in s1", "memo of r2 in s2"]
    assert await waits.memos_for("c") == []
    assert await waits.memo_of("r2") == "memo of r2 in s2"
    assert await waits.count() == 2
    assert sorted([entry async for entry in waits.known()]) == [("r1", "s1"), ("r2", "s2")]


async def test_the_next_wait_of_a_run_takes_the_place_of_the_one_before(waits: Waits) -> None:
    await waits.began([Run("r1", "s1", ("a", "b"))])
    await waits.began([Run("r1", "s2", ("b", "c"))])
    assert await waits.memos_for("a") == []
    assert await waits.memos_for("b") == await waits.memos_for("c") == ["memo of r1 in s2"]
    await waits.ended("r1", "s1")  # told late
    assert await waits.wait_of("r1") == "s2"
    await waits.ended("r1", "s2")
    assert await waits.memos_for("c") == []
    assert await waits.wait_of("r1") is None


async def test_nothing_is_left_behind_by_a_wait_that_is_over(waits: Waits, redis: AsyncRedis) -> None:
    await waits.began([Run("r1", "s1", ("a",), deadline=NOW, reminder=NOW)])
    await waits.ended("r1", "s1")
    assert await waits.may_be_tagged("r1")
    assert [run_id async for run_id in waits.all_tagged()] == ["r1"]
    await waits.untagged("r1")
    assert await redis.keys("*") == []


async def test_a_wait_that_goes_on_without_its_process_is_news_and_gets_its_alarms(waits: Waits) -> None:
    run = Run("r1", "w1", ("a",))
    without = replace(run, suspended=True, deadline=NOW)
    assert await waits.fresh([run]) == {"r1": None}
    await waits.began([run])
    assert await waits.fresh([run]) == {}
    assert await waits.fresh([without]) == {"r1": "w1"}
    await waits.began([without])
    assert await waits.memos_for("a") == ["memo of r1 in w1 without a process"]
    assert [(alarm.kind, alarm.wait) for alarm in await waits.due(NOW)] == [("deadline", "w1")]


async def test_an_alarm_is_due_at_its_time_and_until_it_is_seen_to(waits: Waits) -> None:
    await waits.began([Run("r1", "s1", deadline=NOW + timedelta(seconds=2), reminder=NOW)])
    assert [alarm.kind for alarm in await waits.due(NOW)] == ["reminder"]
    due = await waits.due(NOW + timedelta(seconds=2))
    assert {alarm.kind for alarm in due} == {"reminder", "deadline"}
    await waits.silence(due)
    assert await waits.due(NOW + timedelta(hours=1)) == []
    await waits.began([Run("r1", "s1", deadline=NOW + timedelta(seconds=2), reminder=NOW)])
    assert await waits.due(NOW + timedelta(hours=1)) == [], "a wait that was heard of again has no new alarms"
