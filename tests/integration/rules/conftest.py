"""The router and the windows on a real Valkey; flow runs wait in their queues, signals in a list."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from config.settings import HistorySettings, JournalSettings
from events.event import Event
from events.identity import identity_of
from events.rule import Rule, RuleSet
from events.rule_model import RuleSpec
from events.signal import ResumeSignal
from services.routing.router import Router
from services.routing.rule_windows import RuleWindows
from services.store.connection import AsyncRedis
from services.store.runs.dispatch_queues import Dispatch
from tests.support.router_role import RouterRole, RulesInHand


@dataclass
class Routing:
    """One router process; ``rules`` may be changed at any time."""

    redis: AsyncRedis
    consumer: str = "router-1"
    rules: RulesInHand = field(default_factory=lambda: RulesInHand(RuleSet(), "test"))
    signals: list[ResumeSignal] = field(default_factory=list)

    def __post_init__(self) -> None:
        role = RouterRole(
            self.redis,
            consumer=self.consumer,
            submit=self._submit,
            journal=JournalSettings(claim_idle_seconds=0.1),
            history=HistorySettings(),
        )
        self.journal, self.dead, self.history = role.journal, role.dead_letters, role.history
        self.queues, self.progress, self.store = role.queues, role.transitions, role.windows
        router, windows = role.routing(self.rules).values()
        assert isinstance(router, Router)
        assert isinstance(windows, RuleWindows)
        self.router, self.windows = router, windows

    def use(self, *specs: dict[str, Any]) -> None:
        """Put these rules in force."""
        rules = (
            Rule(RuleSpec.model_validate({"name": "r", **({} if "correlate" in spec else {"on": "*"}), **spec}))
            for spec in specs
        )
        self.rules.use(RuleSet(rules), "test")

    async def publish(self, *events: Event) -> list[str]:
        """Journal events; answers their positions."""
        taken = await self.journal.append(events, received=datetime.now(UTC).isoformat(), listener="test")
        return [one.position for one in taken]

    async def route(self) -> None:
        """Handle everything that is unread."""
        while entries := await self.journal.read():
            await self.router._handle(entries)

    async def dispatches(self) -> list[Dispatch]:
        """What waits in all queues."""
        found = await self.queues.read(dict.fromkeys(await self.queues.names(), ("", 10_000)))
        return [one.dispatch for rows in found.values() for one in rows]

    async def notes(self, event_id: str) -> list[str]:
        """What the event's history says of windows."""
        found = await self.history.get(identity_of("test", event_id))
        assert found is not None
        return [verdict.detail for verdict in found.verdicts if verdict.detail] + [note.text for note in found.notes]

    async def _submit(self, signal: ResumeSignal) -> None:
        self.signals.append(signal)


def an_event(type_: str = "m.a", *, id_: str | None = None, data: Any = None, subject: str | None = None) -> Event:
    now = datetime.now(UTC)
    return Event(id=id_ or str(uuid.uuid4()), source="test", type=type_, subject=subject, time=now, data=data)


@pytest.fixture
def routing(redis: AsyncRedis) -> Routing:
    return Routing(redis)
