"""What the roles count: once, under names that keep to Prometheus' conventions, and added up in Redis."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry, Counter, Histogram

from services.common.metrics import REGISTRY, Gains, Series, families
from services.listeners.message_intake import Message
from services.operations.metric_totals import MOST_SERIES, TOTALS, MetricTotals
from services.store.connection import AsyncRedis
from tests.support.sources import Door, Letters, cloudevent, intake


async def test_messages_are_counted_as_taken_in_and_as_rejected(redis: AsyncRedis) -> None:
    taking = intake(Door(redis), Letters(), listener="redis:counted")
    await taking.accept([Message(cloudevent("a"), "1", "a test"), Message(b"bad", "2", "a test")])
    assert REGISTRY.get_sample_value("sluice_messages_received_total", {"listener": "redis:counted"}) == 2
    rejected = {"listener": "redis:counted", "code": "not-json"}
    assert REGISTRY.get_sample_value("sluice_messages_rejected_total", rejected) == 1


class Process:
    """What one process counts, and how it adds that to the totals."""

    def __init__(self, redis: AsyncRedis) -> None:
        registry = CollectorRegistry()
        self.matched = Counter("sluice_rule_matches", "-", ["rule"], registry=registry)
        self.took = Histogram("sluice_run_start_seconds", "-", ["rule"], buckets=(1, 5), registry=registry)
        self.gains = Gains(registry)
        self.totals = MetricTotals(redis)

    async def add(self) -> dict[str, float]:
        gains = self.gains.now()
        await self.totals.add(gains)
        self.gains.added(gains)
        return gains


async def shown(redis: AsyncRedis) -> dict[str, float]:
    return {
        Series(sample.name, sample.labels).field(): sample.value
        for family in families(await MetricTotals(redis).read())
        for sample in family.samples
    }


MATCHES = Series("sluice_rule_matches_total", {"rule": "r"}).field()


async def test_counts_of_all_processes_are_added_up_and_never_go_back(redis: AsyncRedis) -> None:
    first, second = Process(redis), Process(redis)
    first.matched.labels("r").inc(3)
    second.matched.labels("r").inc(4)
    await asyncio.gather(first.add(), second.add())
    assert (await shown(redis))[MATCHES] == 7
    first.matched.labels("r").inc()
    assert await first.add() == {MATCHES: 1}, "only what was gained is sent"
    again = Process(redis)  # in place of one that has ended
    again.matched.labels("r").inc(2)
    await again.add()
    assert (await shown(redis))[MATCHES] == 10


async def test_a_histogram_stays_one_when_it_is_added_up(redis: AsyncRedis) -> None:
    for seconds in ((0.5, 2), (3, 30)):
        process = Process(redis)
        for one in seconds:
            process.took.labels("r").observe(one)
        await process.add()
    samples = [
        (sample.name.rpartition("_")[2], sample.labels.get("le"), sample.value)
        for family in families(await MetricTotals(redis).read())
        if family.name == "sluice_run_start_seconds"
        for sample in family.samples
    ]
    assert samples == [
        ("bucket", "1.0", 1),
        ("bucket", "5.0", 3),
        ("bucket", "+Inf", 4),
        ("sum", None, 35.5),
        ("count", None, 4),
    ]


async def test_a_series_is_there_from_its_first_zero_on(redis: AsyncRedis) -> None:
    process = Process(redis)
    process.matched.labels("r")
    await process.add()
    assert (await shown(redis))[MATCHES] == 0
    assert await process.add() == {}


async def test_there_is_room_for_so_many_series_and_no_more(redis: AsyncRedis) -> None:
    await redis.hset(TOTALS, mapping={f'["x",{{"n":"{n}"}}]': 1 for n in range(MOST_SERIES)})
    totals = MetricTotals(redis)
    await totals.add({MATCHES: 1, '["x",{"n":"0"}]': 1})
    assert await redis.hlen(TOTALS) == MOST_SERIES
    assert await redis.hget(TOTALS, '["x",{"n":"0"}]') == b"2"


async def test_what_others_wrote_among_the_totals_is_passed_over(redis: AsyncRedis) -> None:
    names = [
        "no json",
        "7",
        '["sluice_rule_matches_total",{"other":"label"}]',
        '["sluice_rule_matches_total",{"rule":7}]',
    ]
    await redis.hset(TOTALS, mapping={**dict.fromkeys(names, "1"), MATCHES: "many"})
    totals = MetricTotals(redis)
    assert MATCHES not in await shown(redis)
    await totals.add({MATCHES: 2})
    assert (await shown(redis))[MATCHES] == 2


def test_every_metric_is_named_as_prometheus_would_have_it() -> None:
    for family in families(()):
        assert family.name.startswith("sluice_")
        assert family.documentation.endswith(".")
        assert family.type in {"counter", "histogram"}
        assert family.type != "histogram" or family.name.endswith("_seconds")
