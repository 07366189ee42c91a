from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from events.window import Ask
from services.store.connection import AsyncRedis
from services.store.rules.windows import PREFIX, Closed, WindowStore
from tests.support.waiting import eventually

INFINITY = float("inf")


@pytest.fixture
def store(redis: AsyncRedis) -> WindowStore:
    return WindowStore(redis, seen_seconds=60)


def batch(key: str = "", *, most: int = 3, wait: float = 60) -> Ask:
    return Ask("r", mode="batch", key=key, max_events=most, wait_seconds=wait, max_wait_seconds=wait)


def debounce(*, wait: float, longest: float = INFINITY, most: int = 1000) -> Ask:
    return Ask("r", mode="debounce", key="k", max_events=most, wait_seconds=wait, max_wait_seconds=longest)


def correlate(kind: str, *, within: float = 60, key: str = "k", kinds: tuple[str, ...] = ()) -> Ask:
    return Ask(
        "r",
        mode="correlate",
        key=key,
        max_events=1,
        wait_seconds=within,
        max_wait_seconds=within,
        kinds=kinds or (kind,),
        all_kinds=("order", "payment"),
    )


async def offer(store: WindowStore, ask: Ask, number: int | str, **options: Any) -> str:
    reply = await store.offer(ask, identity=f"e{number}", **{"position": f"1000-{number}", **options})
    return reply.said


async def closed(store: WindowStore, *, lease: float = 60) -> list[Closed]:
    await store.close_due()
    return await store.claim(lease_seconds=lease)


async def soon(store: WindowStore) -> Closed:
    (found,) = await eventually(lambda: closed(store), what="a window closes")
    return found


def ids(found: Closed) -> list[str]:
    return [member.identity for member in found.members]


class TestABatch:
    async def test_closes_with_the_event_that_fills_it(self, store: WindowStore) -> None:
        assert [await offer(store, batch(), number) for number in range(4)] == ["held", "held", "closed", "held"]
        (found,) = await closed(store)
        assert (found.rule, found.key, found.why) == ("r", "", "full")
        assert ids(found) == ["e0", "e1", "e2"]
        assert [member.position for member in found.members] == ["1000-0", "1000-1", "1000-2"]

    async def test_closes_when_its_first_event_has_waited_long_enough(self, store: WindowStore) -> None:
        await offer(store, batch(wait=0.2), 1)
        assert await closed(store) == []
        assert 0 < (await store.next_seconds() or 0) <= 0.2
        await offer(store, batch(wait=0.2), 2)
        found = await soon(store)
        assert (found.why, ids(found)) == ("time", ["e1", "e2"])

    async def test_keeps_keys_apart(self, store: WindowStore) -> None:
        for number in range(6):
            await offer(store, batch("even" if number % 2 == 0 else "odd\nx"), number)
        assert {found.key: ids(found) for found in await closed(store)} == {
            "even": ["e0", "e2", "e4"],
            "odd\nx": ["e1", "e3", "e5"],
        }

    async def test_takes_an_event_once_however_often_it_is_offered(self, store: WindowStore) -> None:
        assert [await offer(store, batch(), 1) for _ in range(3)] == ["held"] * 3
        assert (await store.counts()).events == 1

    async def test_that_closed_does_not_take_its_events_again(self, store: WindowStore) -> None:
        for number in range(3):
            await offer(store, batch(), number)
        (found,) = await closed(store)
        assert await offer(store, batch(), 1) == "held"
        assert await offer(store, batch(), 1, position="2000-0") == "repeated"
        await store.done(found)
        assert await offer(store, batch(), 1) == "held"
        assert (await store.counts()) == (await store.counts()).__class__(0, 0, 0)

    async def test_takes_a_rerun_as_another_event(self, store: WindowStore) -> None:
        await offer(store, batch(most=2), 1)
        assert await offer(store, batch(most=2), 1, position="2000-0", salt="s") == "closed"
        (found,) = await closed(store)
        assert [member.salt for member in found.members] == [None, "s"]

    async def test_of_which_nothing_came_may_be_gathered_again(self, store: WindowStore) -> None:
        await offer(store, batch(most=1), 1)
        (found,) = await closed(store)
        await store.done(found, again=True)
        assert await offer(store, batch(most=1), 1, position="2000-0") == "closed"


class TestADebounce:
    async def test_closes_when_its_key_has_been_quiet(self, store: WindowStore) -> None:
        for number in range(3):
            await offer(store, debounce(wait=1.0), number)
            await asyncio.sleep(0.4)  # a part of the quiet that closes it
            assert await closed(store) == []
        found = await soon(store)
        assert (found.why, ids(found)) == ("time", ["e0", "e1", "e2"])

    async def test_closes_at_the_latest_after_its_longest_wait(self, store: WindowStore) -> None:
        found: list[Closed] = []
        for number in range(40):
            await offer(store, debounce(wait=0.3, longest=0.5), number)
            await asyncio.sleep(0.05)  # it is never quiet for long enough
            found = await closed(store)
            if found:
                break
        assert found, "it was never quiet, and never closed"
        assert len(found[0].members) < 40

    async def test_closes_when_it_is_full(self, store: WindowStore) -> None:
        assert [await offer(store, debounce(wait=60, most=2), number) for number in (1, 2)] == ["held", "closed"]
        assert await offer(store, debounce(wait=60, longest=120, most=2), 3) == "held"
        assert (await store.next_seconds()) == 0  # the closed one may be claimed
        await closed(store)
        assert (await store.next_seconds() or 0) > 50


class TestACorrelation:
    async def test_closes_when_every_kind_is_there(self, store: WindowStore) -> None:
        assert await offer(store, correlate("payment"), 1) == "held"
        assert await offer(store, correlate("order"), 2) == "closed"
        (found,) = await closed(store)
        assert found.why == "complete"
        assert {member.kind: member.identity for member in found.members} == {"payment": "e1", "order": "e2"}

    async def test_pairs_several_of_a_kind_in_order(self, store: WindowStore) -> None:
        for number, kind in enumerate(["order", "order", "payment", "payment", "order"]):
            await offer(store, correlate(kind), number)
        pairs = [ids(found) for found in await closed(store)]
        assert pairs == [["e0", "e2"], ["e1", "e3"]]
        assert (await store.counts()).open == 1

    async def test_lets_an_event_stand_for_the_kind_that_is_missing(self, store: WindowStore) -> None:
        await offer(store, correlate("", kinds=("order", "payment")), 1)
        assert await offer(store, correlate("", kinds=("order", "payment")), 2) == "closed"

    async def test_gives_up_what_has_waited_too_long_and_nothing_else(self, store: WindowStore) -> None:
        await offer(store, correlate("order", within=2), 1)
        await asyncio.sleep(1)  # the second has as much time left when the first's is over
        await offer(store, correlate("order", within=2), 2)
        found = await soon(store)
        assert (found.why, ids(found)) == ("incomplete", ["e1"])
        assert await offer(store, correlate("payment", within=2), 3) == "closed"

    async def test_keeps_keys_apart(self, store: WindowStore) -> None:
        await offer(store, correlate("order", key="1"), 1)
        assert await offer(store, correlate("payment", key="2"), 2) == "held"


class TestAThrottle:
    ASK = Ask("r", throttle_key="k", throttle_events=2, throttle_seconds=0.4)

    async def test_drops_what_is_too_much_and_says_so(self, store: WindowStore) -> None:
        assert [await offer(store, self.ASK, number) for number in range(4)] == [
            "pass",
            "pass",
            "throttled",
            "throttled",
        ]
        assert await store.dropped() == {"r": 2}
        drops = await store.drops("r", limit=10)
        assert [(drop.identity, drop.why, drop.key) for drop in drops] == [
            ("e3", "throttled", "k"),
            ("e2", "throttled", "k"),
        ]

    async def test_lets_events_pass_again_after_its_time(self, store: WindowStore) -> None:
        for number in range(2):
            await offer(store, self.ASK, number)

        async def passes() -> bool:
            return await offer(store, self.ASK, 9) == "pass"

        await eventually(passes)

    async def test_lets_an_event_pass_again_that_has_passed(self, store: WindowStore) -> None:
        for number in range(2):
            await offer(store, self.ASK, number)
        assert await offer(store, self.ASK, 1) == "pass"

    async def test_keeps_keys_apart(self, store: WindowStore) -> None:
        for key in ("a", "b", ""):
            assert await offer(store, Ask("r", throttle_key=key, throttle_events=1, throttle_seconds=60), key) == "pass"


class TestDedupe:
    ASK = Ask("r", dedupe_key="k", dedupe_seconds=0.4)

    async def test_drops_what_repeats_and_names_the_first(self, store: WindowStore) -> None:
        assert await offer(store, self.ASK, 1) == "pass"
        reply = await store.offer(self.ASK, identity="e2", position="1-2")
        assert (reply.said, reply.other) == ("duplicate", "e1")
        (drop,) = await store.drops("r", limit=5)
        assert (drop.identity, drop.other) == ("e2", "e1")

    async def test_lets_the_first_pass_however_often_it_comes(self, store: WindowStore) -> None:
        assert [await offer(store, self.ASK, 1) for _ in range(3)] == ["pass"] * 3

    async def test_forgets_after_its_time(self, store: WindowStore) -> None:
        await offer(store, self.ASK, 1)

        async def passes() -> bool:
            return await offer(store, self.ASK, 2) == "pass"

        await eventually(passes)


async def test_an_event_that_one_window_drops_leaves_no_trace_in_another(store: WindowStore) -> None:
    free = replace(batch(most=9), dedupe_key="b", dedupe_seconds=60)
    other = replace(free, throttle_key="t", throttle_events=1, throttle_seconds=60)
    throttled = replace(other, dedupe_key="a")
    assert await offer(store, throttled, 1) == "held"
    assert await offer(store, other, 2) == "throttled"
    assert await offer(store, free, 3) == "held", "the dropped event had taken the dedupe key"
    assert (await store.counts()).events == 2


class TestClosedWindows:
    async def test_are_one_routers_at_a_time_and_come_again_if_it_is_not_done(self, store: WindowStore) -> None:
        await offer(store, batch(most=1), 1)
        first = await closed(store, lease=0.2)
        assert await closed(store) == []
        again = await eventually(lambda: closed(store))
        assert again == first

    async def test_that_are_done_leave_nothing_but_what_ends_by_itself(
        self, store: WindowStore, redis: AsyncRedis
    ) -> None:
        for number, ask in enumerate(
            [batch(most=1), debounce(wait=60, most=1), correlate("order"), correlate("payment")]
        ):
            await offer(store, ask, number)
        for found in await closed(store):
            await store.done(found)
        left = [key async for key in redis.scan_iter() if key != b"sluice:windows:count"]
        assert all(key.startswith(f"{PREFIX}seen:".encode()) for key in left), left
        assert all([await redis.pttl(key) > 0 for key in left])
        assert await store.next_seconds() is None
        assert await store.oldest_positions() == []

    async def test_keep_the_journal_from_being_trimmed_until_they_are_done(self, store: WindowStore) -> None:
        await offer(store, batch(most=2), 1, position="2000-5")
        await offer(store, batch(most=2), 2, position="1000-7")
        assert await store.oldest_positions() == ["1000-0"]
        (found,) = await closed(store)
        assert await store.oldest_positions() == ["1000-0"]
        await store.done(found)
        assert await store.oldest_positions() == []


@pytest.mark.parametrize("seed", range(5))
async def test_every_event_leaves_exactly_once_with_several_routers(redis: AsyncRedis, seed: int) -> None:
    chance = random.Random(seed)
    stores = [WindowStore(redis, seen_seconds=60) for _ in range(3)]
    left: list[Closed] = []

    async def router(store: WindowStore, numbers: list[int]) -> None:
        for number in numbers:
            ask = batch(f"key {number % 3}", most=7, wait=chance.choice([0.01, 0.05]))
            await offer(store, ask, number)
            if chance.random() < 0.3:
                for found in await closed(store, lease=chance.choice([0.001, 0.3])):
                    if chance.random() < 0.7:  # else it dies here, and another does it again
                        left.append(found)
                        await store.done(found)

    numbers = list(range(200))
    await asyncio.gather(*(router(store, chance.sample(numbers, k=len(numbers))) for store in stores))

    async def empty() -> bool:
        for found in await closed(stores[0], lease=0.001):
            left.append(found)
            await stores[0].done(found)
        counts = await stores[0].counts()
        return (counts.open, counts.closed, counts.events) == (0, 0, 0)

    await eventually(empty)
    windows = {found.id: found for found in left}
    assert Counter(id_ for found in windows.values() for id_ in ids(found)) == Counter(f"e{n}" for n in numbers)
    assert all(1 <= len(found.members) <= 7 for found in windows.values())
