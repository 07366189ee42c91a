"""The history: what is remembered of each event, found again by what was asked, and small."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from config.settings import HistorySettings, JournalSettings
from events.errors import RejectedEvent
from services.store.connection import AsyncRedis
from services.store.event_transitions import EventTransitions, Made, Routed
from services.store.events.event_history import compact_json, fold, note_line, packed, unpacked
from services.store.events.history import HISTORY, History, Query
from services.store.events.journal import Journal
from services.store.events.verdict_lines import Judged, VerdictLines
from tests.unit.services.store.making import dispatch, event, name, pending, routed


@dataclass(frozen=True)
class Verdict:
    rule: str
    matched: bool = False
    failed: str | None = None
    detail: str = ""
    error: RejectedEvent | None = None


@pytest.fixture
def history(redis: AsyncRedis) -> History:
    return History(redis, HistorySettings())


async def _route(redis: AsyncRedis, id_: str, verdicts: list[Verdict], *, type_: str = "order.placed") -> str:
    journal = Journal(redis, JournalSettings())
    (position,) = await pending(journal, event(id_, type_))
    judged = Judged(position, type_, verdicts, "v7")
    (line,) = await VerdictLines(redis, HistorySettings()).lines([judged], now_ms=int(time.time() * 1000))
    matched = [verdict.rule for verdict in verdicts if verdict.matched]
    await EventTransitions(redis, retention_seconds=60).route([Routed(name(id_), position, [line], matched)])
    return position


async def _line(redis: AsyncRedis, line: list[Any]) -> None:
    await redis.rpush(HISTORY + name("a"), packed(line))


async def test_every_verdict_comes_back_in_the_order_of_the_rules(redis: AsyncRedis, history: History) -> None:
    verdicts = [
        Verdict("first", failed="type", detail="the type does not match 'x'"),
        Verdict("second", matched=True),
        Verdict("third", failed="when", detail="event.data.amount = 5"),
        Verdict("fourth", failed="enabled", detail="the rule is disabled"),
        Verdict("fifth", matched=True, error=RejectedEvent("template", "no such key")),
    ]
    await _route(redis, "e1", verdicts)
    found = await history.get(name("e1"))
    assert found is not None
    assert [(one.rule, one.matched, one.failed, one.detail) for one in found.verdicts] == [
        ("first", False, "type", "the type does not match 'x': 'order.placed'"),
        ("second", True, None, ""),
        ("third", False, "when", "event.data.amount = 5"),
        ("fourth", False, "enabled", "the rule is disabled"),
        ("fifth", True, None, "no such key"),
    ]
    assert found.rules_version == "v7"


async def test_five_hundred_rules_cost_an_event_no_more_than_a_few_hundred_bytes(redis: AsyncRedis) -> None:
    verdicts = [Verdict(f"rule-{n}", failed="type", detail=f"the type does not match 'kind.{n}.*'") for n in range(500)]
    verdicts[250] = Verdict("the-one", matched=True)
    for number in range(20):
        await _route(redis, f"e{number}", verdicts)
    assert int(await redis.memory_usage(HISTORY + name("e7"))) < 300
    found = await History(redis, HistorySettings()).get(name("e7"))
    assert found is not None
    assert [verdict.rule for verdict in found.verdicts[249:252]] == ["rule-249", "the-one", "rule-251"]
    assert found.verdicts[499].detail == "the type does not match 'kind.499.*': 'order.placed'"


async def test_events_are_found_by_what_is_asked_for_newest_first(redis: AsyncRedis, history: History) -> None:
    match, miss = Verdict("pay", matched=True), Verdict("pay", failed="when", detail="no")
    await _route(redis, "a", [match])
    await _route(redis, "b", [miss])
    await _route(redis, "c", [miss], type_="weather.changed")
    await _route(redis, "d", [match], type_="order.paid")
    await Journal(redis, JournalSettings()).append([event("waiting")], received="now")

    async def ids(**asked: object) -> list[str]:
        return [found.id for found in await history.search(Query(**asked), limit=10)]

    assert await ids() == ["waiting", "d", "c", "b", "a"]
    assert await ids(type="order.*") == ["waiting", "d", "b", "a"]
    assert await ids(type="order.*", rule="pay") == ["d", "a"]
    assert await ids(unmatched=True) == ["c", "b"]
    assert await ids(unmatched=True, type="order.*") == ["b"]
    assert await ids(source="nobody") == []
    assert await ids(subject="s", rule="pay") == ["d", "a"]
    assert await ids(since=time.time() + 60) == []
    assert await ids(until=time.time() - 60) == []
    assert await ids(since=time.time() - 60, rule="pay") == ["d", "a"]
    assert [found.id for found in await history.search(Query(), limit=2)] == ["waiting", "d"]


async def test_a_search_goes_on_beyond_the_first_page(redis: AsyncRedis, history: History) -> None:
    journal = Journal(redis, JournalSettings())
    await journal.append([event("needle", "rare")], received="now")
    await journal.append([event(f"e{number}") for number in range(1200)], received="now")
    assert [found.id for found in await history.search(Query(type="rare"), limit=1)] == ["needle"]


async def test_a_replayed_event_is_listed_once_and_says_so(redis: AsyncRedis, history: History) -> None:
    position = await _route(redis, "a", [Verdict("pay", matched=True)])
    journal = Journal(redis, JournalSettings())
    (again,) = await journal.append_again([(event("a"), "now", "cli")])
    await journal.read()
    await EventTransitions(redis, retention_seconds=60).route([routed("a", again, matched=["pay"], quiet=True)])
    (found,) = await history.search(Query(rule="pay"), limit=9)
    assert found.judged == 2
    (found,) = await history.search(Query(), limit=9)
    assert found.position == position


async def test_signals_letters_and_notes_are_part_of_it(redis: AsyncRedis, history: History) -> None:
    await _route(redis, "a", [Verdict("go", matched=True)])
    await history.signal(name("a"), "a:go", "applied")
    found = await history.get(name("a"))
    assert found is not None
    assert found.outcome == "done"
    await _line(redis, ["d", 0, "l1", "go", "unknown-run", "no such run"])
    await _line(redis, note_line("go", "looked at"))
    found = await history.get(name("a"))
    assert found is not None
    assert [(one.id, one.text) for one in found.signals] == [("a:go", "applied")]
    assert [(one.id, one.code, one.text) for one in found.dead] == [("l1", "unknown-run", "no such run")]
    assert [one.text for one in found.notes] == ["looked at"]
    assert found.outcome == "failed"


async def test_a_letter_that_a_later_run_made_good_is_no_failure(redis: AsyncRedis, history: History) -> None:
    position = await _route(redis, "a", [Verdict("pay", matched=True)])
    await _line(redis, ["d", 0, "l1", "pay", "template", "no"])
    progress = EventTransitions(redis, retention_seconds=60)
    await progress.created([Made("0-1", dispatch(event("a"), position), "r1")])
    await progress.run_state(
        run_id="r1", state_type="COMPLETED", state_name="Completed", message="", at_ms=1, final=True, url=""
    )
    found = await history.get(name("a"))
    assert found is not None
    assert found.outcome == "done"


async def test_an_unknown_event_is_none(history: History) -> None:
    assert await history.get("nobody") is None
    assert await history.events_of_run("nobody") == []


def test_lines_are_packed_when_that_saves_something_and_always_come_back() -> None:
    short, long = ["n", 1, None, "ü"], ["n", 1, None, "again and " * 100]
    assert packed(short) == compact_json(short)
    assert len(packed(long)) < 100
    assert unpacked(packed(short)) == short
    assert unpacked(packed(long)) == long


def test_lines_of_another_version_are_passed_over() -> None:
    found = fold("e", "1-0", None, [["z", 1, 2], ["n", 1000, None, "kept"]], shared={})
    assert [note.text for note in found.notes] == ["kept"]
    assert found.journalled == datetime.fromtimestamp(0.001, UTC)
