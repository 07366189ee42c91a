"""Each step of an event is one atomic move that is safe to repeat, and the end of it is announced exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from config.settings import HistorySettings, JournalSettings
from events.dead_letter import DeadLetter
from services.store.connection import AsyncRedis
from services.store.event_transitions import (
    DONE_VALUE,
    OPEN_VALUE,
    EventTransitions,
    Made,
    dead_value,
    window_token,
)
from services.store.events.event_history import now_ms
from services.store.events.history import History, Query
from services.store.events.journal import Journal
from services.store.runs.created_runs import RUNS, CreatedRuns
from services.store.runs.dispatch_queues import DispatchQueues
from tests.unit.services.store.making import dispatch, event, finished, name, pending, routed

R1 = "00000001-0000-4000-8000-000000000000"
R2 = "00000002-0000-4000-8000-000000000000"


@pytest.fixture
def journal(redis: AsyncRedis) -> Journal:
    return Journal(redis, JournalSettings())


@pytest.fixture
def progress(redis: AsyncRedis) -> EventTransitions:
    return EventTransitions(redis, retention_seconds=60)


def letter(code: str, reason: str) -> DeadLetter:
    now = datetime.now(UTC)
    known = {"id": "l1", "kind": "event", "rule": "pay", "source": "shop", "raw": b"{}"}
    return DeadLetter(code=code, reason=reason, first_failed=now, last_failed=now, **known)


async def _end(
    progress: EventTransitions, run_id: str, state: str = "COMPLETED", *, at: int = 2000, message: str = ""
) -> object:
    return await progress.run_state(
        run_id=run_id,
        state_type=state,
        state_name=state.title(),
        message=message,
        at_ms=at,
        final=state in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"},
        url=f"http://ui/{run_id}",
    )


async def test_routing_acknowledges_and_fills_the_queue_in_one_step(
    redis: AsyncRedis, journal: Journal, progress: EventTransitions
) -> None:
    one = event()
    (position,) = await pending(journal, one)
    wanted = dispatch(one, position, parameters={"amount": 1})
    await progress.route([routed("e1", position, matched=["pay"], dispatches=[wanted])])
    assert (await journal.depth()).pending == 0
    queues = DispatchQueues(redis)
    assert await queues.names() == ["pay:flow/d"]
    (waiting,) = (await queues.read({"pay:flow/d": ("", 10)}))["pay:flow/d"]
    assert waiting.dispatch == wanted
    assert await progress.open_effects(name("e1")) == ["pay#0"]
    assert await queues.oldest_positions() == [position]


async def test_routing_an_entry_twice_does_nothing_the_second_time(
    redis: AsyncRedis, journal: Journal, progress: EventTransitions
) -> None:
    one = event()
    (position,) = await pending(journal, one)
    done = routed("e1", position, matched=["pay"], dispatches=[dispatch(one, position)])
    await asyncio.gather(*(progress.route([done]) for _ in range(5)))
    assert await DispatchQueues(redis).lengths(["pay:flow/d"]) == {"pay:flow/d": 1}


async def test_a_run_leaves_the_queue_when_it_is_recorded_and_the_empty_queue_goes(
    redis: AsyncRedis, journal: Journal, progress: EventTransitions
) -> None:
    one = event()
    (position,) = await pending(journal, one)
    await progress.route([routed("e1", position, matched=["pay"], dispatches=[dispatch(one, position)])])
    (waiting,) = (await DispatchQueues(redis).read({"pay:flow/d": ("", 10)}))["pay:flow/d"]
    made = Made(waiting.entry, waiting.dispatch, "run-1")
    assert await progress.created([made]) == [True]
    assert await progress.created([made]) == [False]
    assert await DispatchQueues(redis).names() == []
    run = await CreatedRuns(redis).get("run-1")
    assert run is not None
    assert (run.events, run.rule, run.deployment, run.state) == (((name("e1"), position),), "pay", "flow/d", None)
    assert await CreatedRuns(redis).active("pay") == 1
    history = await History(redis, HistorySettings()).get(name("e1"))
    assert history is not None
    assert [run.run_id for run in history.runs] == ["run-1"]


async def test_an_event_is_finished_once_when_its_last_effect_is_final(
    redis: AsyncRedis, journal: Journal, progress: EventTransitions
) -> None:
    one = event()
    (position,) = await pending(journal, one)
    both = [dispatch(one, position), dispatch(one, position, rule="ship")]
    await progress.route([routed("e1", position, matched=["pay", "ship"], dispatches=both)])
    await progress.created([Made("0-1", both[0], R1), Made("0-2", both[1], R2)])
    await _end(progress, R1)
    assert await finished(redis) == []
    await asyncio.gather(*(_end(progress, R2, "FAILED", message="no") for _ in range(5)))
    await _end(progress, R1)
    (end,) = await finished(redis)
    assert (end["ok"], end["matched"], end["identity"]) == (False, 2, name("e1"))
    assert {run["run_id"]: run["state_type"] for run in end["runs"]} == {R1: "COMPLETED", R2: "FAILED"}
    assert await progress.open_effects(name("e1")) == []
    assert await CreatedRuns(redis).open_count() == 0


async def test_late_news_does_not_overwrite_later_states(
    redis: AsyncRedis, journal: Journal, progress: EventTransitions
) -> None:
    one = event()
    (position,) = await pending(journal, one)
    wanted = dispatch(one, position)
    await progress.route([routed("e1", position, matched=["pay"], dispatches=[wanted])])
    await progress.created([Made("0-1", wanted, R1)])
    await _end(progress, R1, "COMPLETED", at=5000)
    news = await _end(progress, R1, "RUNNING", at=3000)
    assert (news.known, news.new) == (True, False)  # type: ignore[attr-defined]
    run = await CreatedRuns(redis).get(R1)
    assert run is not None
    assert run.state == "COMPLETED"
    stranger = await _end(progress, "nobody")
    assert not stranger.known  # type: ignore[attr-defined]


async def test_a_retried_run_is_open_again_and_its_success_is_told_apart(
    redis: AsyncRedis, journal: Journal, progress: EventTransitions
) -> None:
    one = event()
    (position,) = await pending(journal, one)
    wanted = dispatch(one, position)
    await progress.route([routed("e1", position, matched=["pay"], dispatches=[wanted])])
    await progress.created([Made("0-1", wanted, R1)])
    await _end(progress, R1, "FAILED", at=1000)
    history = History(redis, HistorySettings())
    assert [found.id for found in await history.search(Query(failed=True), limit=9)] == ["e1"]
    await _end(progress, R1, "RUNNING", at=2000)
    assert await CreatedRuns(redis).active("pay") == 1
    news = await _end(progress, R1, "COMPLETED", at=3000)
    assert news.new  # type: ignore[attr-defined]
    assert await CreatedRuns(redis).active("pay") == 0
    assert len(await finished(redis)) == 1
    found = await history.get(name("e1"))
    assert found is not None
    assert found.outcome == "done"


async def test_a_refused_run_is_an_end_too(redis: AsyncRedis, journal: Journal, progress: EventTransitions) -> None:
    one = event()
    (position,) = await pending(journal, one)
    wanted = dispatch(one, position)
    await progress.route([routed("e1", position, matched=["pay"], dispatches=[wanted])])
    (waiting,) = (await DispatchQueues(redis).read({"pay:flow/d": ("", 1)}))["pay:flow/d"]
    for _ in range(2):
        await progress.refused(waiting.entry, wanted, [letter("bad", "so bad")])
    (end,) = await finished(redis)
    assert end["dead"] == [{"letter_id": "l1", "rule": "pay", "code": "bad", "reason": "so bad"}]
    found = await History(redis, HistorySettings()).get(name("e1"))
    assert found is not None
    assert [(dead.id, dead.code) for dead in found.dead] == [("l1", "bad")]


async def test_a_repair_that_finds_everything_done_announces_nothing(
    redis: AsyncRedis, journal: Journal, progress: EventTransitions
) -> None:
    one = event()
    (position,) = await pending(journal, one)
    wanted = dispatch(one, position)
    await progress.route([routed("e1", position, matched=["pay"], dispatches=[wanted])])
    await progress.created([Made("0-1", wanted, R1)])
    await _end(progress, R1)
    (again,) = await journal.append_again([(one, "now", "cli")])
    await journal.read()
    await progress.route([routed("e1", again, matched=["pay"], dispatches=[dispatch(one, again)], quiet=True)])
    assert await progress.created([Made("0-2", dispatch(one, again), R1)]) == [False]
    assert await progress.open_effects(name("e1")) == []
    assert len(await finished(redis)) == 1


async def test_a_repair_after_a_dead_letter_waits_for_the_new_run(
    redis: AsyncRedis, journal: Journal, progress: EventTransitions
) -> None:
    one = event()
    (position,) = await pending(journal, one)
    other = dispatch(one, position, rule="ship")
    effect = ("pay!", dead_value(letter("template", "no")))
    await progress.route([routed("e1", position, matched=["pay", "ship"], dispatches=[other], effects=[effect])])
    assert await progress.open_effects(name("e1")) == ["ship#0"]
    (again,) = await journal.append_again([(one, "now", "cli")], only=["pay"])
    await journal.read()
    await progress.route([routed("e1", again, matched=["pay"], dispatches=[dispatch(one, again)], quiet=True)])
    assert await progress.open_effects(name("e1")) == ["pay#0", "ship#0"]


async def test_a_refused_run_that_is_replayed_is_open_again(
    redis: AsyncRedis, journal: Journal, progress: EventTransitions
) -> None:
    one = event()
    (position,) = await pending(journal, one)
    both = [dispatch(one, position), dispatch(one, position, rule="ship")]
    await progress.route([routed("e1", position, matched=["pay", "ship"], dispatches=both)])
    (waiting,) = (await DispatchQueues(redis).read({"pay:flow/d": ("", 1)}))["pay:flow/d"]
    await progress.refused(waiting.entry, both[0], [letter("bad", "so bad")])
    assert await progress.open_effects(name("e1")) == ["ship#0"]
    (again,) = await journal.append_again([(one, "now", "cli")], only=["pay"])
    await journal.read()
    await progress.route([routed("e1", again, matched=["pay"], dispatches=[dispatch(one, again)], quiet=True)])
    assert await progress.open_effects(name("e1")) == ["pay#0", "ship#0"]


async def test_a_run_that_is_over_is_not_asked_about_again(
    redis: AsyncRedis, journal: Journal, progress: EventTransitions
) -> None:
    one = event()
    (position,) = await pending(journal, one)
    await progress.created([Made("0-1", dispatch(one, position), R1)])
    runs = CreatedRuns(redis)
    assert await runs.due(2**53, limit=9) == [R1]
    await _end(progress, R1)
    await runs.ask_again([R1], at_ms=0)
    assert await runs.due(2**53, limit=9) == []


async def test_a_window_keeps_its_events_open_until_it_lets_them_go(
    redis: AsyncRedis, journal: Journal, progress: EventTransitions
) -> None:
    events = [event("a"), event("b")]
    positions = await pending(journal, *events)
    token = window_token("pay")
    for one, position in zip(events, positions, strict=True):
        await progress.route([routed(one.id, position, matched=["pay"], effects=[(token, OPEN_VALUE)])])
    assert await finished(redis) == []
    both = dispatch(events[0], positions[0])
    pairs = list(zip(map(name, "ab"), positions, strict=True))
    assert await progress.release(token=token, events=pairs, dispatches=[both]) == 2
    assert await progress.open_effects(name("a")) == await progress.open_effects(name("b")) == ["pay#0"]
    assert await DispatchQueues(redis).names() == ["pay:flow/d"]


async def test_a_window_that_is_quicker_than_the_router_loses_no_event(
    redis: AsyncRedis, journal: Journal, progress: EventTransitions
) -> None:
    (position,) = await pending(journal, event("a"))
    token = window_token("pay")
    await progress.release(token=token, events=[(name("a"), position)], value=DONE_VALUE)
    assert await finished(redis) == []
    await progress.route([routed("a", position, matched=["pay"], effects=[(token, OPEN_VALUE)])])
    assert [end["identity"] for end in await finished(redis)] == [name("a")]


async def test_texts_from_outside_survive_in_the_announcement(
    redis: AsyncRedis, journal: Journal, progress: EventTransitions
) -> None:
    strange = 'quote " backslash \\ newline \n ünïcode 🙂 </script>'
    one = event(strange.replace("\n", " ")[:200])
    (position,) = await pending(journal, one)
    wanted = dispatch(one, position)
    await progress.route([routed(one.id, position, matched=["pay"], dispatches=[wanted])])
    await progress.created([Made("0-1", wanted, R1)])
    await _end(progress, R1, "FAILED", message=strange)
    (end,) = await finished(redis)
    assert end["identity"] == one.identity
    assert end["runs"][0]["message"] == strange


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations(["a0", "a1", "b0", "a0", "b0", "a1"]))
async def test_in_whatever_order_ends_are_heard_each_event_is_finished_once(
    redis: AsyncRedis, heard: list[str]
) -> None:
    await redis.flushdb()
    journal, progress = Journal(redis, JournalSettings()), EventTransitions(redis, retention_seconds=60)
    events = [event("a"), event("b")]
    positions = await pending(journal, *events)
    runs = {"a0": (0, "x"), "a1": (0, "y"), "b0": (1, "x")}
    for index, (one, position) in enumerate(zip(events, positions, strict=True)):
        mine = [dispatch(one, position, rule=rule) for at, rule in runs.values() if at == index]
        await progress.route([routed(one.id, position, matched=["x"], dispatches=mine)])
    for number, (run_id, (index, rule)) in enumerate(runs.items()):
        await progress.created([Made(f"0-{number + 1}", dispatch(events[index], positions[index], rule=rule), run_id)])
    ends: list[Awaitable[object]] = [_end(progress, run_id) for run_id in heard]
    await asyncio.gather(*ends)
    assert sorted(end["identity"] for end in await finished(redis)) == [name("a"), name("b")]


async def test_a_new_run_is_asked_about_the_later_the_more_runs_are_open(
    redis: AsyncRedis, journal: Journal, progress: EventTransitions
) -> None:
    one, two = event("e1"), event("e2")
    first, second = await pending(journal, one, two)
    await progress.created([Made("1-0", dispatch(one, first), "run-1")])
    await redis.zadd(RUNS, {f"other-{number}": 0 for number in range(999)})
    await progress.created([Made("2-0", dispatch(two, second), "run-2")])
    scores = await redis.zmscore(RUNS, ["run-1", "run-2"])
    assert 5_000 <= scores[0] - now_ms() + 2_000 < 8_000
    assert 20_000 <= scores[1] - now_ms() + 2_000 < 23_000
