from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest

from events.errors import TransientError
from events.identity import identity_of
from services.store.connection import AsyncRedis
from services.store.dead_letters import LetterQuery
from services.store.events.finished_events import FINISHED
from services.store.rules.windows import Counts
from services.store.runs.dispatch_queues import Dispatch
from tests.integration.rules.conftest import Routing, an_event
from tests.support.waiting import eventually

BATCH = {
    "run": "load/default",
    "batch": {"max_events": 3, "max_wait_seconds": 30},
    "parameters": {"rows": "{{ events | map(attribute='data') }}"},
}
NAMES = {
    **BATCH,
    "batch": {"max_events": 9, "max_wait_seconds": 30},
    "parameters": {"names": "{{ events | map(attribute='data.name') }}"},
}
JOIN = {
    "run": "ship/default",
    "correlate": {
        "all": {"order": "order.*", "payment": "payment.*"},
        "key": "{{ event.subject }}",
        "within_seconds": 0.3,
    },
    "parameters": {"order": "{{ joined.order.id }}", "payment": "{{ joined.payment.id }}"},
}


def _names(*ids: str) -> tuple[str, ...]:
    return tuple(identity_of("test", id_) for id_ in ids)


def _keys(id_: str, *salts: str) -> list[str]:
    return [f"{_names(id_)[0]}:r{salt}" for salt in salts]


async def finished(redis: AsyncRedis) -> list[dict[str, object]]:
    return [json.loads(fields[b"finished"]) for _, fields in await redis.xrange(FINISHED)]


async def waiting(routing: Routing) -> list[Dispatch]:
    await routing.windows.act()
    return await routing.dispatches()


class TestABatch:
    async def test_becomes_one_run_that_every_event_points_at(self, routing: Routing) -> None:
        routing.use(BATCH)
        positions = await routing.publish(*(an_event(id_=f"e{n}", data=n) for n in range(3)))
        await routing.route()
        (dispatch,) = await waiting(routing)
        assert dispatch.action.parameters == {"rows": [0, 1, 2]}
        assert dispatch.action.identities == _names("e0", "e1", "e2")
        assert dispatch.action.idempotency_key == _names("e0")[0] + ":r"
        assert list(dispatch.positions) == positions
        for number in range(3):
            assert await routing.notes(f"e{number}") == [
                "waits in its batch window",
                "its window was full with 3 events",
            ]

    async def test_that_is_not_full_goes_when_its_time_is_over(self, routing: Routing) -> None:
        routing.use({**BATCH, "batch": {"max_events": 99, "max_wait_seconds": 0.2}})
        await routing.publish(an_event(data=1), an_event(data=2))
        await routing.route()
        assert await waiting(routing) == []
        (dispatch,) = await eventually(lambda: waiting(routing))
        assert dispatch.action.parameters == {"rows": [1, 2]}

    async def test_leaves_no_event_open_and_finishes_none_too_soon(self, routing: Routing, redis: AsyncRedis) -> None:
        routing.use(BATCH)
        await routing.publish(*(an_event(data=n) for n in range(3)))
        await routing.route()
        await routing.windows.act()
        assert await finished(redis) == []

    async def test_may_resume_what_waits(self, routing: Routing) -> None:
        routing.use(
            {
                "batch": BATCH["batch"],
                "resume": {"key": "{{ events | length }}", "input": {"ids": "{{ events | map(attribute='id') }}"}},
            }
        )
        await routing.publish(*(an_event(id_=f"e{n}") for n in range(3)))
        await routing.route()
        await routing.windows.act()
        (signal,) = routing.signals
        assert signal.key == "3"
        assert signal.input == {"ids": ["e0", "e1", "e2"]}
        assert signal.id == _names("e0")[0] + ":r"


class TestADebounce:
    async def test_runs_once_with_the_latest_and_keeps_all(self, routing: Routing) -> None:
        routing.use(
            {
                "run": "a/b",
                "debounce": {"key": "{{ event.subject }}", "wait_seconds": 0.2},
                "parameters": {"latest": "{{ event.data }}", "all": "{{ events | map(attribute='data') }}"},
            }
        )
        await routing.publish(*(an_event(subject="s", data=n) for n in range(4)), an_event(subject="t", data=9))
        await routing.route()

        async def both() -> list[Dispatch] | None:
            found = await waiting(routing)
            return found if len(found) == 2 else None

        found = await eventually(both)
        assert found is not None
        assert sorted((one.action.parameters for one in found), key=str) == [
            {"latest": 3, "all": [0, 1, 2, 3]},
            {"latest": 9, "all": [9]},
        ]


class TestACorrelation:
    async def test_runs_when_all_kinds_of_a_key_have_come(self, routing: Routing) -> None:
        routing.use(JOIN)
        await routing.publish(
            an_event("payment.made", id_="p1", subject="1"),
            an_event("order.made", id_="o2", subject="2"),
            an_event("order.made", id_="o1", subject="1"),
        )
        await routing.route()
        (dispatch,) = await waiting(routing)
        assert dispatch.action.parameters == {"order": "o1", "payment": "p1"}
        assert await routing.notes("o1") == [
            "waits in its correlate window",
            "its window under the key '1' was complete with 2 events",
        ]

    async def test_makes_dead_letters_of_leftovers_that_say_what_was_missing(
        self, routing: Routing, redis: AsyncRedis
    ) -> None:
        routing.use(JOIN)
        await routing.publish(an_event("order.made", id_="o1", subject="1"))
        await routing.route()

        async def letters() -> list[object]:
            await routing.windows.act()
            return list(await routing.dead.search(LetterQuery(), limit=10))

        await eventually(letters)
        (letter,) = await routing.dead.search(LetterQuery(), limit=10)
        assert (letter.code, letter.rule, letter.event_id) == ("incomplete", "r", "o1")
        assert letter.reason == "no payment (payment.*) came within 0.3 s for the key '1'"
        (end,) = await finished(redis)
        assert (end["identity"], end["ok"]) == (*_names("o1"), False)

    async def test_takes_a_leftover_again_when_it_is_replayed(self, routing: Routing) -> None:
        routing.use(JOIN)
        order = an_event("order.made", id_="o1", subject="1")
        await routing.publish(order)
        await routing.route()

        async def buried() -> list[object]:
            await routing.windows.act()
            return list(await routing.dead.search(LetterQuery(), limit=10))

        await eventually(buried)
        await routing.journal.append_again([(order, "", "test")])
        await routing.publish(an_event("payment.made", id_="p1", subject="1"))
        await routing.route()
        (dispatch,) = await waiting(routing)
        assert dispatch.action.parameters == {"order": "o1", "payment": "p1"}


class TestWhatIsDropped:
    async def test_by_a_throttle_starts_nothing_and_is_listed(self, routing: Routing, redis: AsyncRedis) -> None:
        routing.use({"run": "a/b", "throttle": {"max_events": 1, "per_seconds": 60}})
        await routing.publish(*(an_event(id_=f"e{n}") for n in range(3)))
        await routing.route()
        assert [one.action.identities for one in await routing.dispatches()] == [_names("e0")]
        assert await routing.notes("e2") == ["dropped by throttle: too many events within its time"]
        assert await routing.store.dropped() == {"r": 2}
        assert [(end["identity"], end["ok"]) for end in await finished(redis)] == [
            (name, True) for name in _names("e1", "e2")
        ]

    async def test_as_a_repetition_names_what_it_repeats(self, routing: Routing) -> None:
        routing.use({"run": "a/b", "dedupe_key": "{{ event.subject }}", "dedupe_seconds": 60})
        await routing.publish(
            an_event(id_="e1", subject="x"), an_event(id_="e2", subject="x"), an_event(id_="e3", subject="y")
        )
        await routing.route()
        assert [one.action.identities for one in await routing.dispatches()] == [_names("e1"), _names("e3")]
        assert await routing.notes("e2") == ["dropped: it repeats the event e1 (dedupe_key)"]

    async def test_starts_all_the_same_when_it_is_rerun_on_purpose(self, routing: Routing) -> None:
        routing.use({"run": "a/b", "dedupe_key": "{{ event.subject }}", "throttle": {"per_seconds": 60}})
        first = an_event(id_="e1", subject="x")
        await routing.publish(first)
        await routing.journal.append_again([(first, "", "test")], salt="again")
        await routing.route()
        assert [one.action.idempotency_key for one in await routing.dispatches()] == _keys("e1", "", "~again")


class TestReplays:
    async def test_as_a_repair_do_not_gather_again_what_was_gathered(self, routing: Routing) -> None:
        routing.use(BATCH)
        events = [an_event(id_=f"e{n}", data=n) for n in range(3)]
        await routing.publish(*events)
        await routing.route()
        await routing.windows.act()
        await routing.journal.append_again([(event, "", "test") for event in events])
        await routing.route()
        assert len(await waiting(routing)) == 1
        assert "its batch window has had it before" in await routing.notes("e1")

    async def test_as_a_rerun_gather_again_under_new_keys(self, routing: Routing) -> None:
        routing.use(BATCH)
        events = [an_event(id_=f"e{n}", data=n) for n in range(3)]
        await routing.publish(*events)
        await routing.journal.append_again([(event, "", "test") for event in events], salt="again")
        await routing.route()
        found = await waiting(routing)
        assert [one.action.idempotency_key for one in found] == _keys("e0", "", "~again")


class TestWhatCannotBeDone:
    async def test_becomes_a_dead_letter_for_each_event(self, routing: Routing, redis: AsyncRedis) -> None:
        routing.use({**BATCH, "parameters": {"names": "{{ events | map(attribute='data.name') }}"}})
        await routing.publish(*(an_event(id_=f"e{n}", data={}) for n in range(3)))
        await routing.route()
        await routing.windows.act()
        letters = await routing.dead.search(LetterQuery(), limit=10)
        assert {letter.event_id for letter in letters} == {"e0", "e1", "e2"}
        assert {letter.code for letter in letters} == {"template"}
        assert len(await finished(redis)) == 3
        assert await routing.store.counts() == Counts(0, 0, 0)

    async def test_of_one_event_costs_that_event_alone(self, routing: Routing, redis: AsyncRedis) -> None:
        routing.use(NAMES)
        await routing.publish(*(an_event(id_=f"e{n}", data={} if n in {0, 6} else {"name": n}) for n in range(9)))
        await routing.route()
        await routing.windows.act()
        letters = await routing.dead.search(LetterQuery(), limit=10)
        assert {(letter.event_id, letter.code) for letter in letters} == {("e0", "template"), ("e6", "template")}
        loaded = [number for one in await routing.dispatches() for number in one.action.parameters["names"]]
        assert sorted(loaded) == [1, 2, 3, 4, 5, 7, 8]
        assert {one["identity"] for one in await finished(redis)} == {*_names("e0", "e6")}
        assert await routing.store.counts() == Counts(0, 0, 0)

    async def test_leaves_nothing_undone_or_done_twice_wherever_a_process_ends(
        self, routing: Routing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("services.routing.rule_windows.LEASE_SECONDS", 0.01)
        seed = random.randrange(10**6)
        print(f"seed {seed}")  # noqa: T201 - to run it again
        chance = random.Random(seed)
        routing.use({**NAMES, "batch": {"max_events": 40, "max_wait_seconds": 30}})
        bad = {3, 17, 18, 39}
        await routing.publish(*(an_event(id_=f"e{n}", data={} if n in bad else {"name": n}) for n in range(40)))
        await routing.route()

        longest = 0.02

        async def settled() -> bool:
            nonlocal longest
            acting = asyncio.create_task(Routing(routing.redis, rules=routing.rules).windows.act())
            await asyncio.wait({acting}, timeout=chance.uniform(0, longest))
            longest *= 1.01  # a slow machine gets nothing done in 20 ms
            acting.cancel()
            await asyncio.gather(acting, return_exceptions=True)
            return await routing.store.counts() == Counts(0, 0, 0)

        await eventually(settled)
        # A repeated hand-over of one part is known by its key, as Prefect knows it.
        by_key = {one.action.idempotency_key: one.action.parameters["names"] for one in await routing.dispatches()}
        assert sorted(number for names in by_key.values() for number in names) == sorted(set(range(40)) - bad), seed
        letters = await routing.dead.search(LetterQuery(), limit=50)
        assert {letter.event_id for letter in letters} == {f"e{n}" for n in bad}, seed

    async def test_of_events_that_belong_together_is_not_divided(self, routing: Routing) -> None:
        routing.use({**JOIN, "parameters": {"name": "{{ joined.order.data.name }}"}})
        await routing.publish(an_event("order.x", subject="1", data={}), an_event("payment.x", subject="1", data={}))
        await routing.route()
        await routing.windows.act()
        assert len(await routing.dead.search(LetterQuery(), limit=10)) == 2

    async def test_because_the_rule_was_taken_away_is_told(self, routing: Routing) -> None:
        routing.use({**BATCH, "batch": {"max_events": 9, "max_wait_seconds": 0.1}})
        await routing.publish(an_event(id_="e1"))
        await routing.route()
        routing.use({"name": "other", "run": "a/b", "when": "false"})

        async def letters() -> list[str]:
            await routing.windows.act()
            return [letter.code for letter in await routing.dead.search(LetterQuery(), limit=10)]

        assert await eventually(letters) == ["rule-gone"]

    async def test_because_the_rule_no_longer_gathers_is_done_one_by_one(self, routing: Routing) -> None:
        routing.use({**BATCH, "batch": {"max_events": 9, "max_wait_seconds": 0.1}})
        await routing.publish(an_event(id_="e1"), an_event(id_="e2"))
        await routing.route()
        routing.use({"run": "single/default"})

        async def found() -> list[tuple[str, ...]]:
            return [one.action.identities for one in await waiting(routing)]

        assert await eventually(found) == [_names("e1"), _names("e2")]


class TestCrashes:
    async def test_between_the_window_and_the_acknowledgement_gather_nothing_twice(
        self, routing: Routing, redis: AsyncRedis
    ) -> None:
        routing.use(BATCH)
        await routing.publish(*(an_event(id_=f"e{n}", data=n) for n in range(3)))
        entries = await routing.journal.read()
        for entry in entries:
            await routing.router._deciding.decide(entry)  # and dies before it acknowledges
        await routing.windows.act()  # the window is even quicker than the next router
        other = Routing(redis, consumer="router-2", rules=routing.rules)

        async def claimed() -> bool:
            found = await other.journal.claim(count=10)
            await other.router._handle(found)
            return (await other.journal.depth()).pending == 0

        await eventually(claimed)
        assert len(await waiting(other)) == 1
        assert await finished(redis) == []
        assert set(await other.notes("e1")) == {"its window was full with 3 events", "waits in its batch window"}

    async def test_that_lose_the_answer_of_the_release_repeat_nothing(
        self, routing: Routing, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        routing.use(BATCH)
        await routing.publish(*(an_event(id_=f"e{n}", data=n) for n in range(3)))
        await routing.route()

        release = routing.progress.release

        async def dies(**given: Any) -> None:
            await release(**given)
            raise TransientError("gone")

        with monkeypatch.context() as patch:
            patch.setattr(routing.progress, "release", dies)
            with pytest.raises(TransientError):
                await routing.windows.act()
        routing.use({"run": "another/default"})
        await routing.windows.act()
        assert [one.action.idempotency_key for one in await routing.dispatches()] == _keys("e0", "")
        assert await routing.store.counts() == Counts(0, 0, 0)


async def test_the_part_closes_windows_by_itself_and_says_how_it_is(routing: Routing) -> None:
    routing.use({**BATCH, "batch": {"max_events": 9, "max_wait_seconds": 0.2}})
    running = asyncio.create_task(routing.windows.run())
    try:
        await routing.publish(an_event(), an_event())
        await routing.route()
        await eventually(lambda: _status(routing, "open", 1))
        await eventually(routing.dispatches)
        await eventually(lambda: _status(routing, "open", 0))
        assert routing.windows.status() == {"open": 0, "closing": 0, "events": 0, "dropped": {}}
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _status(routing: Routing, name: str, value: object) -> bool:
    return bool(routing.windows.status()[name] == value)
