"""What a replay would do, and what it does: each chosen event once, in order, at its pace."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import pytest

from config.settings import HistorySettings, JournalSettings
from events.errors import NotFound
from events.event import Event
from events.rule import Rule, RuleSet, Verdict, evaluate
from events.rule_model import RuleSpec
from services.routing.replay import Forecast, Replay, new_salt
from services.store.connection import AsyncRedis
from services.store.event_finder import EventFinder
from services.store.event_transitions import EventTransitions, Made
from services.store.events.history import History, Query
from services.store.events.journal import Journal, JournalEntry
from services.store.files.returns import FileReturns
from tests.unit.services.store.making import RECEIVED, dispatch, event, pending, routed

R1 = "00000001-0000-4000-8000-000000000000"


async def _no_prefect() -> NoReturn:
    raise AssertionError("no run is to be started here")


@pytest.fixture
def replay(redis: AsyncRedis) -> Replay:
    history = HistorySettings()
    known = History(redis, history)
    return Replay(
        journal=Journal(redis, JournalSettings()),
        history=known,
        finder=EventFinder(redis, known),
        returns=FileReturns(redis, journal=JournalSettings(), history=history),
        prefect=_no_prefect,
    )


@pytest.fixture
def journal(redis: AsyncRedis) -> Journal:
    return Journal(redis, JournalSettings())


def judge(*specs: dict[str, Any]):
    rules = RuleSet(Rule(RuleSpec.model_validate(spec)) for spec in specs)

    def judged(one: Event) -> Sequence[Verdict]:
        return evaluate(rules, one)

    return judged


PAY = {"name": "pay", "on": "order.*", "run": "flow/d", "parameters": {"amount": "{{ event.data.amount }}"}}
RULES = (
    PAY,
    {"name": "answer", "on": "*", "resume": {"key": "k"}},
    {"name": "batch", "on": "*", "run": "b/d", "batch": {"max_events": 5, "max_wait_seconds": 5}},
)


async def _route(redis: AsyncRedis, journal: Journal, *ids: str, run: str | None = None) -> list[str]:
    """Events that one rule matched; the first one has a run, if one is named."""
    positions = await pending(journal, *(event(id_, amount=1) for id_ in ids))
    moves = EventTransitions(redis, retention_seconds=60)
    for id_, at in zip(ids, positions, strict=True):
        await moves.route([routed(id_, at, matched=["pay"])])
    if run is not None:
        made = dispatch(event(ids[0]), positions[0])
        await moves.created([Made("0-1", made, run)])
    return positions


async def _replayed(journal: Journal) -> list[JournalEntry]:
    return [entry for entry in await journal.read(count=100) if isinstance(entry, JournalEntry)]


async def test_events_are_chosen_by_a_query_oldest_first(redis: AsyncRedis, journal: Journal, replay: Replay) -> None:
    positions = await _route(redis, journal, "a", "b", "c")
    chosen = await replay.select([], Query(rule="pay"))
    assert chosen == [(event(id_).identity, at) for id_, at in zip("abc", positions, strict=True)]


async def test_events_are_chosen_by_what_somebody_has_of_them(
    redis: AsyncRedis, journal: Journal, replay: Replay
) -> None:
    (position,) = await _route(redis, journal, "order-1", run=R1)
    await _route(redis, journal, "other")
    for known in ("order-1", "orde", R1):
        assert await replay.select([known], None) == [(event("order-1").identity, position)]
    with pytest.raises(NotFound):
        await replay.select(["order-1", "unknown"], None)
    with pytest.raises(NotFound):
        await replay.select(["order-1"], None, source="bank")


async def test_of_the_chosen_events_the_failed_ones_are_told_apart(
    redis: AsyncRedis, journal: Journal, replay: Replay
) -> None:
    failed, well = await _route(redis, journal, "a", "b", run=R1)
    moves = EventTransitions(redis, retention_seconds=60)
    await moves.run_state(
        run_id=R1, state_type="FAILED", state_name="Failed", message="", at_ms=2000, final=True, url=""
    )
    chosen = [(event("a").identity, failed), (event("b").identity, well)]
    retries, others = await replay.failures(chosen, named=False)
    assert [one.runs for one in retries] == [(R1,)]
    assert others == [well]


async def test_a_forecast_counts_by_rule_what_would_happen(redis: AsyncRedis, journal: Journal, replay: Replay) -> None:
    positions = await _route(redis, journal, "a", "b", run=R1)
    (broken,) = await pending(journal, event("broken"))
    forecast = await replay.forecast([*positions, broken], judge(*RULES))
    assert forecast.events == 3
    assert forecast.rows() == [
        {"rule": "answer", "runs": 0, "already_there": 0, "signals": 3, "gathered": 0, "errors": 0},
        {"rule": "batch", "runs": 0, "already_there": 0, "signals": 0, "gathered": 3, "errors": 0},
        {"rule": "pay", "runs": 1, "already_there": 1, "signals": 0, "gathered": 0, "errors": 1},
    ]
    assert await _replayed(journal) == [], "a forecast starts nothing"


async def test_a_rerun_makes_also_the_runs_that_there_are(redis: AsyncRedis, journal: Journal, replay: Replay) -> None:
    positions = await _route(redis, journal, "a", run=R1)
    forecast = await replay.forecast(positions, judge(PAY), rerun=True)
    assert (forecast.runs["pay"], forecast.already["pay"]) == (1, 0)


async def test_of_several_runs_of_a_rule_only_the_missing_ones_are_to_come(
    redis: AsyncRedis, journal: Journal, replay: Replay
) -> None:
    positions = await _route(redis, journal, "a", run=R1)
    twice = {"name": "pay", "on": "order.*", "do": [{"run": "flow/d"}, {"run": "flow/d"}]}
    forecast = await replay.forecast(positions, judge(twice))
    assert (forecast.runs["pay"], forecast.already["pay"]) == (1, 1)


async def test_a_forecast_for_some_rules_leaves_the_others_out(
    redis: AsyncRedis, journal: Journal, replay: Replay
) -> None:
    positions = await _route(redis, journal, "a")
    forecast = await replay.forecast(positions, judge(*RULES), only=["answer"])
    assert [row["rule"] for row in forecast.rows()] == ["answer"]
    assert Forecast().rows() == []


async def test_a_repair_journals_the_events_again_in_order(redis: AsyncRedis, journal: Journal, replay: Replay) -> None:
    positions = await _route(redis, journal, "a", "b", "c")
    told: list[int] = []
    done = await replay.replay(positions, only=["pay"], per_second=10_000, progress=told.append)
    assert (done.events, done.runs, done.refused) == (3, 0, [])
    assert told[-1] == 3
    again = await _replayed(journal)
    assert [(one.event.id, one.replay, one.only, one.salt) for one in again] == [
        (id_, True, ("pay",), None) for id_ in "abc"
    ]
    assert {(one.received, one.listener) for one in again} == {(RECEIVED, "test")}


async def test_a_rerun_of_events_without_files_gives_them_its_salt(
    redis: AsyncRedis, journal: Journal, replay: Replay
) -> None:
    positions = await _route(redis, journal, "a", "b")
    salt = new_salt()
    done = await replay.replay(positions, salt=salt, per_second=10_000)
    assert done.events == 2
    assert [one.salt for one in await _replayed(journal)] == [salt, salt]
    assert new_salt() != salt


async def test_positions_that_the_journal_no_longer_holds_are_passed_over(
    redis: AsyncRedis, journal: Journal, replay: Replay
) -> None:
    positions = await _route(redis, journal, "a", "b")
    await redis.xdel("sluice:journal", positions[0])
    done = await replay.replay(positions, per_second=10_000)
    assert done.events == 1
    assert [one.event.id for one in await _replayed(journal)] == ["b"]


async def test_the_pace_divides_the_events_and_none_is_left_out(
    redis: AsyncRedis, journal: Journal, replay: Replay
) -> None:
    positions = await _route(redis, journal, *(f"e{number}" for number in range(7)))
    told: list[int] = []
    await replay.replay(positions, per_second=500, progress=told.append)
    assert told == [7], "a hundred in each fifth of a second"
    told.clear()
    await replay.replay(positions, per_second=15, progress=told.append)
    assert told == [3, 6, 7]
