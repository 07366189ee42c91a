"""The router: every entry of the journal is seen through to its end, whatever it is and whatever fails meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from config.settings import HistorySettings, JournalSettings
from events.errors import Backpressure, TransientError
from events.event import Event
from events.rule import Rule, RuleSet
from events.rule_model import RuleSpec
from events.signal import ResumeSignal
from services.routing import router as router_module
from services.routing.router import Router
from services.store.connection import AsyncRedis
from services.store.dead_letters import LetterQuery
from services.store.event_transitions import EventTransitions
from services.store.events.journal import STREAM, Journal
from services.store.rules.parked_events import ParkedEvents
from tests.support.failing_once import fails_once
from tests.support.router_role import RouterRole, RulesInHand
from tests.support.waiting import eventually
from tests.unit.services.store.making import RECEIVED, event

PAY = {"name": "pay", "on": "order.*", "run": "flow/d", "parameters": {"amount": "{{ event.data.amount }}"}}


class Routing:
    """One router, and what is in the journal."""

    def __init__(self, redis: AsyncRedis, consumer: str = "router-1", claim_idle_seconds: float = 5.0) -> None:
        self.redis = redis
        self.rules = RulesInHand(RuleSet(), "none")
        self.signals: list[ResumeSignal] = []
        self.role = RouterRole(
            redis,
            consumer=consumer,
            submit=self._submit,
            journal=JournalSettings(claim_idle_seconds=claim_idle_seconds),
            history=HistorySettings(),
        )
        found = self.role.routing(self.rules)["router"]
        assert isinstance(found, Router)
        self.router = found
        self.use(PAY)

    def use(self, *specs: dict[str, Any], version: str = "v1") -> None:
        self.rules.use(RuleSet(Rule(RuleSpec.model_validate(spec)) for spec in specs), version)

    async def publish(self, *events: Event) -> None:
        await self.role.journal.append(events, received=RECEIVED, listener="test")

    async def queued(self) -> list[str]:
        """The ids of the events of the queued runs."""
        names = await self.role.queues.names()
        found = await self.role.queues.read(dict.fromkeys(names, ("", 100)))
        keys = [one.dispatch.action.identities[0] for rows in found.values() for one in rows]
        return [key.partition("@")[0] for key in keys]

    async def idle(self) -> bool:
        """Whether nothing is unread or in hand."""
        depth = await self.role.journal.depth()
        return depth.unread == depth.pending == 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(self.router.run())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _submit(self, signal: ResumeSignal) -> None:
        self.signals.append(signal)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(router_module, "BLOCK_SECONDS", 0.05)
    monkeypatch.setattr(router_module, "CLAIM_SECONDS", 0.02)


@pytest.fixture
def routing(redis: AsyncRedis) -> Routing:
    return Routing(redis)


async def test_entries_are_routed_in_order_and_acknowledged(routing: Routing) -> None:
    await routing.publish(*(event(f"e{number}", amount=number) for number in range(5)))
    async with routing.running():
        await eventually(routing.idle)
        await eventually(lambda: asyncio.sleep(0, routing.router.status()["routed"] == 5))
    assert await routing.queued() == [f"e{number}" for number in range(5)]
    assert routing.router.status()["ready"]


async def test_an_entry_that_is_no_event_is_a_letter_and_the_next_one_is_routed(routing: Routing) -> None:
    await routing.redis.xadd(STREAM, {"event": "no json", "received": RECEIVED})
    await routing.redis.xadd(STREAM, {"anything": "else"})
    await routing.publish(event(amount=1))
    async with routing.running():
        await eventually(routing.idle)
    letters = await routing.role.dead_letters.search(LetterQuery(code="broken-entry"), limit=9)
    assert sorted(letter.raw for letter in letters) == [b"", b"no json"]
    assert await routing.queued() == ["e1"]


@pytest.mark.parametrize("error", [TransientError, Backpressure])
@pytest.mark.parametrize("step", ["read", "route", "bury"])
async def test_what_fails_for_a_moment_is_done_again_and_nothing_twice(
    routing: Routing, monkeypatch: pytest.MonkeyPatch, error: type[Exception], step: str
) -> None:
    owner = {"read": Journal, "route": EventTransitions, "bury": type(routing.role.dead_letters)}[step]
    failed = fails_once(monkeypatch, owner, step, error=error)
    await routing.publish(event("a", amount=1), event("broken"), event("b", amount=2))
    async with routing.running():
        await eventually(routing.idle)
        await eventually(lambda: asyncio.sleep(0, routing.router.status()["ready"]), what="the trouble to be over")
    assert failed
    assert await routing.queued() == ["a", "b"]
    assert len(await routing.role.dead_letters.search(LetterQuery(), limit=9)) == 1


async def test_what_a_dead_router_had_in_hand_is_claimed(redis: AsyncRedis) -> None:
    routing = Routing(redis, claim_idle_seconds=0.05)
    await routing.publish(event("a", amount=1), event("b", amount=2))
    dead = Routing(routing.redis, consumer="dead")
    assert len(await dead.role.journal.read()) == 2
    async with routing.running():
        await eventually(routing.idle)
    assert await routing.queued() == ["a", "b"]
    assert routing.router.status()["claimed"] == 2


async def test_a_router_that_is_told_to_end_finishes_what_it_has_in_hand(
    routing: Routing, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_go_on, inner = asyncio.Event(), asyncio.Event(), EventTransitions.route

    async def route(self: EventTransitions, batch: Any) -> None:
        begun.set()
        await may_go_on.wait()
        await inner(self, batch)

    monkeypatch.setattr(EventTransitions, "route", route)
    await routing.publish(event(amount=1))
    async with routing.running() as task:
        await begun.wait()
        task.cancel()
        asyncio.get_running_loop().call_later(0.02, may_go_on.set)
    assert await routing.idle()
    assert await routing.queued() == ["e1"]


async def test_a_router_that_cannot_finish_in_time_leaves_the_entry_to_others(
    routing: Routing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router_module, "_FINISH_SECONDS", 0.01)
    begun = asyncio.Event()

    async def route(self: EventTransitions, batch: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    with monkeypatch.context() as hanging:
        hanging.setattr(EventTransitions, "route", route)
        await routing.publish(event(amount=1))
        async with routing.running():
            await begun.wait()
    assert not await routing.idle()
    other = Routing(routing.redis, consumer="router-2", claim_idle_seconds=0.05)
    async with other.running():
        await eventually(other.idle)
    assert await other.queued() == ["e1"]


async def test_a_rule_that_parks_is_told_in_the_status_until_it_works(routing: Routing) -> None:
    await routing.publish(*(event(f"e{number}") for number in range(30)))
    async with routing.running():
        await eventually(lambda: asyncio.sleep(0, routing.router.status()["parked"]))
        status = routing.router.status()
        assert status["ready"], "other rules go on"
        assert status["reasons"]["rule-parked"].startswith(f"rule pay has parked {status['parked']['pay']} events: ")
        routing.use({**PAY, "parameters": {}}, version="v2")
        await routing.publish(event("next"))
        await eventually(lambda: asyncio.sleep(0, not routing.router.status()["parked"]))
    assert await ParkedEvents(routing.redis).counts() == {}
    letters = await routing.role.dead_letters.search(LetterQuery(), limit=99)
    assert len(letters) + len(set(await routing.queued())) == 31


async def test_while_redis_is_away_the_status_says_so(routing: Routing, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(self: Journal, **_: Any) -> None:
        raise TransientError("out of reach")

    monkeypatch.setattr(Journal, "read", away)
    async with routing.running():
        await eventually(lambda: asyncio.sleep(0, "degraded" in routing.router.status()))
        status = routing.router.status()
    assert not status["ready"]
    assert "out of reach" in status["degraded"]
