"""What a rule has used of its limits, exactly, and known to whoever comes next."""

from __future__ import annotations

from services.store.connection import AsyncRedis
from services.store.rules.rule_usage import RuleUsages
from services.store.runs.created_runs import ACTIVE, RUNS


async def test_a_rate_counts_what_passed_within_its_time(redis: AsyncRedis) -> None:
    paces = RuleUsages(redis)
    now = 1_000_000
    await paces.pass_on({"pay": ["a", "b"]}, seconds={"pay": 10}, now_ms=now)
    await paces.pass_on({"pay": ["c"]}, seconds={"pay": 10}, now_ms=now + 4_000)
    usage = await paces.usage(active=[], rates={"pay": 10, "ship": 10}, now_ms=now + 9_999)
    assert usage.passed == {"pay": 3, "ship": 0}
    assert usage.oldest_ms == {"pay": now}
    usage = await RuleUsages(redis).usage(active=[], rates={"pay": 10}, now_ms=now + 10_000)
    assert usage.passed == {"pay": 1}
    assert usage.oldest_ms == {"pay": now + 4_000}


async def test_the_same_entry_passes_once(redis: AsyncRedis) -> None:
    paces = RuleUsages(redis)
    await paces.pass_on({"pay": ["a"]}, seconds={"pay": 10}, now_ms=1_000)
    await paces.pass_on({"pay": ["a"]}, seconds={"pay": 10}, now_ms=2_000)
    usage = await paces.usage(active=[], rates={"pay": 10}, now_ms=3_000)
    assert (usage.passed, usage.oldest_ms) == ({"pay": 1}, {"pay": 1_000})


async def test_active_runs_are_counted_by_rule_and_in_all(redis: AsyncRedis) -> None:
    await redis.sadd(ACTIVE + "pay", "r1", "r2")
    await redis.zadd(RUNS, {"r1": 1, "r2": 1, "r3": 1})
    usage = await RuleUsages(redis).usage(active=["pay", "ship"], rates={}, now_ms=0)
    assert (usage.active, usage.open_runs) == ({"pay": 2, "ship": 0}, 3)
