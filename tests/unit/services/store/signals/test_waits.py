"""What is remembered of waiting runs: found by key, replaced by the next wait, and gone with the last."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from services.store.connection import AsyncRedis
from services.store.signals.waits import Waits

NOW = datetime(2026, 1, 2, tzinfo=UTC)
R1 = "00000001-0000-4000-8000-000000000000"
R2 = "00000002-0000-4000-8000-000000000000"
S1 = "00000003-0000-4000-8000-000000000000"
S2 = "00000004-0000-4000-8000-000000000000"


def memo(run_id: str, state_id: str) -> str:
    return f"memo of {run_id} in {state_id}"


@dataclass(frozen=True)
class Run:
    run_id: str
    wait_id: str
    keys: tuple[str, ...] = ()
    deadline: datetime | None = None
    reminder: datetime | None = None
    suspended: bool = False
    since: datetime = NOW

    @property
    def memo(self) -> str:
        return memo(self.run_id, self.wait_id) + (" without a process" if self.suspended else "")


@pytest.fixture
def waits(redis: AsyncRedis) -> Waits:
    return Waits(redis)


async def test_runs_are_found_by_every_key_that_they_wait_for(waits: Waits) -> None:
    await waits.began([Run(R1, S1, ("a", "b")), Run(R2, S2, ("b",))])
    assert await waits.memos_for("a") == [memo(R1, S1)]
    assert sorted(await waits.memos_for("b")) == [memo(R1, S1), memo(R2, S2)]
    assert await waits.memos_for("c") == []
    assert await waits.memo_of(R2) == memo(R2, S2)
    assert await waits.count() == 2
    assert sorted([entry async for entry in waits.known()]) == [(R1, S1), (R2, S2)]


async def test_the_next_wait_of_a_run_takes_the_place_of_the_one_before(waits: Waits) -> None:
    await waits.began([Run(R1, S1, ("a", "b"))])
    await waits.began([Run(R1, S2, ("b", "c"))])
    assert await waits.memos_for("a") == []
    assert await waits.memos_for("b") == await waits.memos_for("c") == [memo(R1, S2)]
    await waits.ended(R1, S1)  # told late
    assert await waits.wait_of(R1) == S2
    await waits.ended(R1, S2)
    assert await waits.memos_for("c") == []
    assert await waits.wait_of(R1) is None


async def test_nothing_is_left_behind_by_a_wait_that_is_over(waits: Waits, redis: AsyncRedis) -> None:
    await waits.began([Run(R1, S1, ("a",), deadline=NOW, reminder=NOW)])
    await waits.ended(R1, S1)
    assert await waits.may_be_tagged(R1)
    assert [run_id async for run_id in waits.all_tagged()] == [R1]
    await waits.untagged(R1)
    assert await redis.keys("*") == []


async def test_a_wait_that_goes_on_without_its_process_is_news_and_gets_its_alarms(waits: Waits) -> None:
    run = Run(R1, "w1", ("a",))
    without = replace(run, suspended=True, deadline=NOW)
    assert await waits.fresh([run]) == {R1: None}
    await waits.began([run])
    assert await waits.fresh([run]) == {}
    assert await waits.fresh([without]) == {R1: "w1"}
    await waits.began([without])
    assert await waits.memos_for("a") == [memo(R1, "w1") + " without a process"]
    assert [(alarm.kind, alarm.wait) for alarm in await waits.due(NOW)] == [("deadline", "w1")]


async def test_an_alarm_is_due_at_its_time_and_until_it_is_seen_to(waits: Waits) -> None:
    await waits.began([Run(R1, S1, deadline=NOW + timedelta(seconds=2), reminder=NOW)])
    assert [alarm.kind for alarm in await waits.due(NOW)] == ["reminder"]
    due = await waits.due(NOW + timedelta(seconds=2))
    assert {alarm.kind for alarm in due} == {"reminder", "deadline"}
    await waits.silence(due)
    assert await waits.due(NOW + timedelta(hours=1)) == []
    await waits.began([Run(R1, S1, deadline=NOW + timedelta(seconds=2), reminder=NOW)])
    assert await waits.due(NOW + timedelta(hours=1)) == [], "a wait that was heard of again has no new alarms"
