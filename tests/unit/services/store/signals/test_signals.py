"""A signal is taken in once under its id; that of a CloudEvent is made of the event's source and id."""

from __future__ import annotations

import json
from typing import Any

import pytest

from config.settings import ResumerSettings
from events.errors import NotFound, Refused
from events.identity import identity_of
from events.signal import ResumeSignal, parse_signal
from events.untrusted_json import Limits
from services.store.connection import AsyncRedis
from services.store.signals.signals import SignalStore


@pytest.fixture
def store(redis: AsyncRedis) -> SignalStore:
    return SignalStore(redis, ResumerSettings())


def _signal(source: str | None, id_: str = "x", **message: Any) -> ResumeSignal:
    data = {"key": "order-1", **message}
    event = {"specversion": "1.0", "id": id_, "source": source, "type": "sluice.resume", "data": data}
    return parse_signal(json.dumps({"id": id_, **data} if source is None else event).encode(), limits=Limits())


async def _new(store: SignalStore, signal: ResumeSignal) -> bool:
    return (await store.submit(signal, "test"))[0]


async def test_one_id_from_two_sources_is_two_signals(store: SignalStore) -> None:
    assert await _new(store, _signal("/attacker"))
    assert await _new(store, _signal("/shop"))
    assert await _new(store, _signal(None))
    assert not await _new(store, _signal("/shop"))
    assert not await _new(store, _signal(None))
    assert [record.signal.id for record in await store.newest(5)] == [
        "x",
        identity_of("/shop", "x"),
        identity_of("/attacker", "x"),
    ]


async def test_an_id_in_the_message_itself_is_the_signals(store: SignalStore) -> None:
    assert _signal("/a", id_="event", id="mine").id == "mine"
    assert len(_signal("/a", id_="x" * 256).id) <= 256


async def test_a_message_with_an_id_of_its_own_cannot_silence_an_event(store: SignalStore) -> None:
    assert await _new(store, _signal(None))
    assert await _new(store, _signal("/shop"))


async def test_people_may_leave_the_digest_out_of_an_id(store: SignalStore) -> None:
    for one in (
        _signal("/a", "[x]"),
        _signal("/a", "y"),
        _signal("/b", "y"),
        _signal(None, identity_of("/a", "z") + ":go"),
    ):
        assert await _new(store, one)
    assert await store.choose("[x]") == identity_of("/a", "[x]")
    assert await store.choose("z:go") == identity_of("/a", "z") + ":go"
    assert await store.choose(identity_of("/a", "y")) == identity_of("/a", "y")
    with pytest.raises(Refused, match=f"one of {identity_of('/b', 'y')}, {identity_of('/a', 'y')}"):
        await store.choose("y")
    with pytest.raises(NotFound):
        await store.choose("nobody")
