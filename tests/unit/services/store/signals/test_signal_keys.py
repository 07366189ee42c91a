"""Every key that signals use is declared, and each declaration takes what is written under it."""

from __future__ import annotations

import pytest

from config.settings import ResumerSettings
from events.signal import Outcome
from services.store.connection import AsyncRedis
from services.store.inspection.elements import elements
from services.store.keys import Key, KeyList
from services.store.signals import outbox, waits
from services.store.signals.outbox import Outbox
from services.store.signals.signal_keys import KEYS
from services.store.signals.signal_record import Answered
from services.store.signals.signals import SignalStore
from services.store.unreadable import FAULTS
from tests.unit.services.store.signals.making import NOW, R1, apply, submitted

DECLARED = KeyList((*KEYS, *outbox.KEYS, *waits.KEYS))


async def test_all_that_a_signal_leaves_is_declared_and_passes_its_check(redis: AsyncRedis) -> None:
    store = SignalStore(redis, ResumerSettings())
    await apply(store, await submitted(store, "applied"))
    await store.buffer(await submitted(store, "buffered", run_id=R1), "early")
    await store.decide(await submitted(store, "rejected"), Outcome.REJECTED, "no")
    await store.answered("k", Answered(R1, NOW, NOW, by="ann"))
    await Outbox(redis, consumer="one").read()
    used = set()
    async with store.busy("run x"):
        for name in [name async for name in redis.scan_iter() if not name.startswith(b"rq:")]:
            declared = DECLARED.of(name)
            assert declared is not None, name
            kind = (await redis.type(name)).decode()
            assert kind == declared.kind
            used.add(declared.pattern)
            if declared.whole and declared.check is not None:
                declared.check(await redis.hgetall(name))
            elif declared.check is not None:
                async for element in elements(redis, name, kind):
                    declared.check(*element.parts)
    assert {key.pattern for key in KEYS} == used & {key.pattern for key in KEYS}


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.pattern)
def test_garbage_is_told_from_what_is_written_under_each_key(key: Key) -> None:
    if key.check is None:
        return
    garbage = {"hash": [{}], "zset": [b"x", float("inf")], "list": [b"x"], "string": [b"\xff"]}[key.kind]
    with pytest.raises(FAULTS):
        key.check(*garbage)
