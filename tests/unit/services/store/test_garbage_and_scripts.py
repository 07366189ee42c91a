"""A script that finds garbage under one of its keys changes nothing, and the same call works once that is set aside."""

from __future__ import annotations

import pytest

from config.settings import HistorySettings, JournalSettings
from services.operations.upkeep.inspector import declared_keys
from services.store.connection import AsyncRedis
from services.store.event_transitions import EventTransitions
from services.store.events.history import HISTORY, UNMATCHED
from services.store.events.journal import STREAM, Journal
from services.store.events.open_effects import OPEN
from services.store.inspection.key_inspection import KeyInspection
from services.store.keys import DISPATCH_QUEUE, DISPATCH_QUEUES, KeyList
from services.store.runs.dispatch_queues import NOTIFY
from services.store.unreadable import UnreadableKey, noted
from tests.support.garbage import TYPES
from tests.unit.services.store.making import dispatch, event, pending, routed

KEYS = KeyList(key for keys in declared_keys().values() for key in keys)


async def snapshot(redis: AsyncRedis) -> dict[bytes, bytes]:
    return {name: await redis.dump(name) async for name in redis.scan_iter()}


@pytest.mark.parametrize("name", [OPEN, HISTORY, UNMATCHED, DISPATCH_QUEUES, NOTIFY, DISPATCH_QUEUE])
async def test_an_event_is_not_acknowledged_while_a_key_has_another_type(redis: AsyncRedis, name: str) -> None:
    journal = Journal(redis, JournalSettings(), consumer="one")
    progress = EventTransitions(redis, retention_seconds=HistorySettings().retention_seconds)
    one = event()
    (position,) = await pending(journal, one)
    wanted = dispatch(one, position)
    outcome = routed(one.id, position, matched=("pay",), dispatches=[wanted])
    whole = {OPEN: one.identity, HISTORY: one.identity, DISPATCH_QUEUE: wanted.queue}
    key = name + whole.get(name, "")
    declared = KEYS.of(key.encode())
    assert declared is not None
    wrong = next(kind for kind in TYPES if kind != declared.kind)
    await (redis.set(key, "x") if wrong == "string" else redis.hset(key, "x", "y"))
    before = await snapshot(redis)
    noted.take()
    with pytest.raises(UnreadableKey, match="instead of a"):
        await progress.route([outcome])
    assert await snapshot(redis) == before
    assert (await journal.depth()).pending == 1
    (found,), _ = noted.take()
    assert found == key.encode(), "the error names the key"
    await KeyInspection(redis, KEYS).of(found)
    await progress.route([outcome])
    assert (await journal.depth()).pending == 0
    assert await redis.xlen(f"{DISPATCH_QUEUE}{wanted.queue}") == 1
    assert await redis.xlen(STREAM) == 1


async def test_what_a_script_does_not_take_for_a_number_of_rules_is_taken_out(redis: AsyncRedis) -> None:
    journal = Journal(redis, JournalSettings(), consumer="one")
    progress = EventTransitions(redis, retention_seconds=HistorySettings().retention_seconds)
    one = event()
    (position,) = await pending(journal, one)
    await redis.hset(OPEN + one.identity, "!matched", "-3")
    noted.take()
    with pytest.raises(UnreadableKey, match="number of rules"):
        await progress.route([routed(one.id, position)])
    (found,), _ = noted.take()
    await KeyInspection(redis, KEYS).of(found)
    await progress.route([routed(one.id, position)])
    assert (await journal.depth()).pending == 0
