"""Damage to an event's state is remembered, and the event judged once more unless it was finished."""

from __future__ import annotations

import json

import pytest

from config.settings import JournalSettings
from services.store.connection import AsyncRedis
from services.store.events.finished_events import FINISHED
from services.store.events.journal import Journal, JournalEntry
from services.store.events.open_effects import OPEN
from services.store.inspection import damaged_events
from services.store.inspection.damaged_events import DAMAGED, DamagedEvents, damaged_by, note_damage
from services.store.runs.created_runs import RUN
from services.store.unreadable import noted
from tests.unit.services.store.making import RECEIVED, event, name


@pytest.fixture
def damaged(redis: AsyncRedis) -> DamagedEvents:
    return DamagedEvents(redis)


@pytest.fixture
def journal(redis: AsyncRedis) -> Journal:
    return Journal(redis, JournalSettings())


async def _again(journal: Journal) -> list[str]:
    entries = [entry for entry in await journal.read(count=100) if isinstance(entry, JournalEntry)]
    return [entry.event.id for entry in entries if entry.replay]


@pytest.mark.parametrize(
    ("key", "what"),
    [
        (f"{OPEN}a@x".encode(), "event a@x"),
        (f"{RUN}run-1".encode(), "run run-1"),
        (b"sluice:journal", None),
        (b"sluice:history:a@x", None),
        (b"\xff", None),
    ],
)
def test_only_the_state_of_events_and_runs_is_waited_for(key: bytes, what: str | None) -> None:
    assert damaged_by(key) == what


async def test_damage_is_remembered_once_and_garbage_among_it_is_noted(
    redis: AsyncRedis, damaged: DamagedEvents
) -> None:
    for _ in range(2):
        await note_damage(redis, f"{OPEN}a@x".encode())
        await note_damage(redis, f"{RUN}run-1".encode())
        await note_damage(redis, b"sluice:journal")
    assert sorted(await damaged.some()) == [("event", "a@x"), ("run", "run-1")]
    noted.take()
    await redis.sadd(DAMAGED, "letter l1", b"\xff")
    assert sorted(await damaged.some()) == [("event", "a@x"), ("run", "run-1")]
    assert noted.take()[0] == {DAMAGED.encode()}


async def test_a_known_event_is_judged_again_and_the_damage_is_mended(
    redis: AsyncRedis, journal: Journal, damaged: DamagedEvents
) -> None:
    await journal.append([event("a"), event("b")], received=RECEIVED)
    await note_damage(redis, f"{RUN}run-1".encode())
    assert await damaged.judge_again("run", "run-1", [name("a"), name("b"), name("forgotten")]) == 2
    assert await _again(journal) == ["a", "b"]
    assert await damaged.some() == []


async def test_a_finished_event_is_not_judged_again(
    redis: AsyncRedis, journal: Journal, damaged: DamagedEvents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(damaged_events, "_PAGE", 2)
    await journal.append([event("a")], received=RECEIVED)
    await note_damage(redis, f"{OPEN}{name('a')}".encode())
    for other in range(4):
        await redis.xadd(FINISHED, {"finished": json.dumps({"identity": f"{other}@x"})})
    await redis.xadd(FINISHED, {"finished": "garbage"})
    await redis.xadd(FINISHED, {"finished": json.dumps({"identity": name("a")})})
    assert await damaged.judge_again("event", name("a"), [name("a")]) == 0
    assert await _again(journal) == []
    assert await damaged.some() == [], "nothing is left to be mended"
