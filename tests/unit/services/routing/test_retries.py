"""Which failures of an event are tried again, and that nothing is started whose file cannot come back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NoReturn

import pytest

from config.settings import HistorySettings, JournalSettings
from events.errors import NotFound
from services.routing.retries import Retries, Retry
from services.store.connection import AsyncRedis
from services.store.dead_letters import event_letter
from services.store.event_transitions import EventTransitions, Made, dead_line, dead_value
from services.store.events.history import History
from services.store.events.journal import STREAM, Journal, JournalEntry
from services.store.files.returns import FileReturns
from tests.unit.services.store.making import dispatch, event, name, pending, routed

RUNS = {rule: f"0000000{number}-0000-4000-8000-000000000000" for number, rule in enumerate(("pay", "ship", "load"), 1)}
PAY = RUNS["pay"]


async def _no_prefect() -> NoReturn:
    raise AssertionError("no run is to be started here")


class World:
    """An event, its runs and its letters."""

    def __init__(self, redis: AsyncRedis) -> None:
        self.redis = redis
        self.journal = Journal(redis, JournalSettings())
        self.moves = EventTransitions(redis, retention_seconds=60)
        history = HistorySettings()
        returns = FileReturns(redis, journal=JournalSettings(), history=history)
        self.retries = Retries(
            history=History(redis, history), journal=self.journal, returns=returns, prefect=_no_prefect
        )

    async def event(self, id_: str = "e1", *, rules: tuple[str, ...] = ("pay",), dead: tuple[str, ...] = ()) -> None:
        """An event with a run for each of the rules, and a letter for each of ``dead``."""
        (position,) = await pending(self.journal, event(id_))
        letters = [event_letter(event(id_), rule=rule, code="template", reason="no") for rule in dead]
        made = [dispatch(event(id_), position, rule=rule) for rule in rules]
        effects = [(f"{one.rule}!", dead_value(one)) for one in letters]
        one = routed(id_, position, matched=[*rules, *dead], dispatches=made, effects=effects)
        await self.moves.route([replace(one, lines=[*one.lines, *map(dead_line, letters)])])
        await self.moves.created([Made("0-1", one, RUNS[one.action.rule]) for one in made])

    async def end(self, rule: str, state: str, state_name: str = "") -> None:
        """A run ends."""
        await self.moves.run_state(
            run_id=RUNS[rule], state_type=state, state_name=state_name or state.title(), message="", at_ms=2000,
            final=True, url="",
        )  # fmt: skip

    async def find(self, **options: Any) -> Retry:
        return await self.retries.find(name("e1"), **({"named": True} | options))


@pytest.fixture
def world(redis: AsyncRedis) -> World:
    return World(redis)


@pytest.mark.parametrize(
    ("state", "named", "tried"),
    [
        ("FAILED", False, True),
        ("CRASHED", False, True),
        ("CANCELLED", False, False),
        ("CANCELLED", True, True),
        ("COMPLETED", True, False),
    ],
)
async def test_failed_runs_are_tried_again_and_cancelled_ones_only_by_name(
    world: World, state: str, named: bool, tried: bool
) -> None:
    await world.event()
    await world.end("pay", state)
    retry = await world.find(named=named)
    assert retry.runs == ((PAY,) if tried else ())
    assert retry.is_empty is not tried


async def test_a_run_that_goes_on_is_left_alone(world: World) -> None:
    await world.event()
    assert (await world.find()).is_empty


async def test_an_event_that_is_not_known_is_said_to_be_so(world: World) -> None:
    with pytest.raises(NotFound, match="not known"):
        await world.find()


async def test_only_the_rules_that_were_named_are_tried_again(world: World) -> None:
    await world.event(rules=("pay", "ship"), dead=("load",))
    for rule in ("pay", "ship"):
        await world.end(rule, "FAILED")
    retry = await world.find(only=["ship"])
    assert (retry.runs, retry.rules) == ((RUNS["ship"],), ())
    retry = await world.find(only=["load"])
    assert (retry.runs, retry.rules) == ((), ("load",))


async def test_a_dead_letter_has_its_rule_judged_again_unless_a_run_made_it_good(world: World) -> None:
    await world.event(rules=("pay",), dead=("pay", "ship"))
    await world.end("pay", "COMPLETED")
    retry = await world.find()
    assert (retry.runs, retry.rules) == ((), ("ship",))


async def test_a_run_that_was_deleted_is_made_anew_by_its_rule(world: World) -> None:
    await world.event(rules=("pay", "ship"))
    await world.end("pay", "CANCELLED", "Deleted")
    await world.end("ship", "FAILED")
    retry = await world.find()
    assert (retry.runs, retry.rules) == ((RUNS["ship"],), ("pay",))


async def test_a_letter_is_replayed_by_its_rule_alone(world: World) -> None:
    await world.event(rules=(), dead=("pay", "ship"))
    retry = await world.find(only=["ship"])
    started, refused = await world.retries.start([retry], by="ann")
    assert (started, refused) == ([retry], [])
    (entry,) = await world.journal.read()
    assert isinstance(entry, JournalEntry)
    assert (entry.event.id, entry.replay, entry.only, entry.salt) == ("e1", True, ("ship",), None)
    assert entry.listener == "test", "it keeps where it came from"


async def test_a_letter_of_an_event_that_the_journal_lost_is_refused_and_the_others_go_on(world: World) -> None:
    await world.event("e2", rules=(), dead=("pay",))
    await world.redis.xtrim(STREAM, maxlen=0)
    lost = await world.retries.find(name("e2"), named=True)
    await world.event("e1", rules=(), dead=("pay",))
    kept = await world.find()
    started, refused = await world.retries.start([lost, kept], by=None)
    assert started == [kept]
    assert [(one.event_id, "no longer holds the event" in one.reason) for one in refused] == [("e2", True)]


async def test_at_a_pace_the_order_of_the_events_is_kept(world: World) -> None:
    for number in range(5):
        await world.event(f"e{number}", rules=(), dead=("pay",))
    retries = [await world.retries.find(name(f"e{number}"), named=True) for number in range(5)]
    started, _ = await world.retries.start(retries, by=None, per_second=2000)
    assert started == retries
    assert [entry.event.id for entry in await world.journal.read() if isinstance(entry, JournalEntry)] == [
        f"e{number}" for number in range(5)
    ]
