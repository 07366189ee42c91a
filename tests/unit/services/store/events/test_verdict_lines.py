"""Verdicts as lines of a history: those that every event of a type has in common are stored once."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from config.settings import HistorySettings
from events.errors import RejectedEvent
from events.rule import Verdict
from services.store.connection import AsyncRedis
from services.store.events import verdict_lines
from services.store.events.event_history import unpacked
from services.store.events.history import SHARED
from services.store.events.verdict_lines import Judged, VerdictLines

NOT_THE_TYPE = Verdict("first", matched=False, failed="type", detail="the type does not match 'x'")
MATCHED = Verdict("second", matched=True)
NOT_WHEN = Verdict("third", matched=False, failed="when", detail="amount = 5")
NOW_MS = 1_767_000_000_000


@pytest.fixture
def lines(redis: AsyncRedis) -> VerdictLines:
    return VerdictLines(redis, HistorySettings(retention_seconds=1000))


def judged(*verdicts: Verdict, type_: str = "order.placed", version: str = "v7", **notes: str) -> Judged:
    return Judged("1-0", type_, verdicts, version, notes)


async def _lines(lines: VerdictLines, *many: Judged) -> list[list[Any]]:
    return [unpacked(line) for line in await lines.lines(many, now_ms=NOW_MS)]


async def _shared(redis: AsyncRedis) -> list[bytes]:
    return [key async for key in redis.scan_iter(match=SHARED + "*")]


async def test_what_a_type_has_in_common_is_stored_once(redis: AsyncRedis, lines: VerdictLines) -> None:
    first, second = await _lines(lines, *[judged(NOT_THE_TYPE, MATCHED, NOT_WHEN)] * 2)
    assert first == second == ["v", NOW_MS, "1-0", "v7", first[4], [[1, "second"], [2, "third", "when", "amount = 5"]]]
    (key,) = await _shared(redis)
    assert key == f"{SHARED}{first[4]}".encode()
    assert await redis.ttl(key) > 1000, "they outlive the histories that refer to them"


@pytest.mark.parametrize(
    "other",
    [
        judged(NOT_THE_TYPE, MATCHED, type_="order.paid"),
        judged(NOT_THE_TYPE._replace(failed="enabled", detail="the rule is disabled"), MATCHED),
        judged(MATCHED, NOT_THE_TYPE),
    ],
    ids=["type", "reason", "place"],
)
async def test_what_differs_is_stored_apart(lines: VerdictLines, other: Judged) -> None:
    (first,) = await _lines(lines, judged(NOT_THE_TYPE, MATCHED))
    (second,) = await _lines(lines, other)
    assert first[4] != second[4]


async def test_an_event_that_every_rule_looked_at_refers_to_nothing(redis: AsyncRedis, lines: VerdictLines) -> None:
    (line,) = await _lines(lines, judged(MATCHED, NOT_WHEN))
    assert line[4] == ""
    assert await _shared(redis) == []


async def test_a_match_says_what_it_led_to_if_it_was_no_run(lines: VerdictLines) -> None:
    broken = Verdict("third", matched=True, error=RejectedEvent("template", "no such key"))
    (line,) = await _lines(lines, judged(MATCHED, broken, second="waits in its batch window"))
    assert line[5] == [[0, "second", None, "waits in its batch window"], [1, "third", None, "no such key"]]


async def test_a_long_reason_is_cut(lines: VerdictLines) -> None:
    long = NOT_WHEN._replace(detail="x" * 10_000)
    (line,) = await _lines(lines, judged(MATCHED, long, second="y" * 10_000))
    assert [len(row[3]) for row in line[5]] == [500, 500]


async def test_they_are_stored_again_before_they_expire(
    redis: AsyncRedis, lines: VerdictLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    (before,) = await _lines(lines, judged(NOT_THE_TYPE))
    await redis.delete(SHARED + before[4])
    await _lines(lines, judged(NOT_THE_TYPE))
    assert await _shared(redis) == [], "within the hour they are known to be there"
    monkeypatch.setattr(verdict_lines, "_SHARED_REFRESH_SECONDS", 0.0)
    (after,) = await _lines(lines, judged(NOT_THE_TYPE))
    assert await _shared(redis) == [f"{SHARED}{after[4]}".encode()]
    assert after[4] == before[4]


async def test_what_is_remembered_of_many_types_does_not_grow_for_ever(
    redis: AsyncRedis, lines: VerdictLines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdict_lines, "_MOST_REMEMBERED", 10)
    many = [judged(NOT_THE_TYPE, type_=f"type-{number}") for number in range(50)]
    assert len({line[4] for line in await _lines(lines, *many)}) == 50
    assert len(lines._digests) <= 11
    assert len(await _shared(redis)) == 50


async def test_a_hundred_rules_that_ask_for_other_types_cost_a_short_line(lines: VerdictLines) -> None:
    verdicts = [NOT_THE_TYPE._replace(rule=f"rule-{number}") for number in range(100)]
    (line,) = await lines.lines([judged(*verdicts)], now_ms=int(time.time() * 1000))
    assert len(line) < 100
    assert json.loads(line)[5] == []
