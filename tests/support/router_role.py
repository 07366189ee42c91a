"""The router's role as `services.app` joins its parts, on a test's connections and on rules that it may change."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any

from config.runs import DispatcherSettings
from config.settings import HistorySettings, JournalSettings
from events.event import Event
from events.rule import RuleSet, Verdict, evaluate
from events.signal import ResumeSignal
from services.app import Parts, dispatch_parts, routing_parts
from services.prefect_api.client import PrefectApi
from services.routing.decisions import PoisonCheck
from services.store.connection import AsyncRedis
from services.store.dead_letters import DeadLetters
from services.store.event_transitions import EventTransitions
from services.store.events.history import History
from services.store.events.journal import Journal
from services.store.files.returns import FileReturns
from services.store.rules.parked_events import ParkedEvents
from services.store.rules.windows import WindowStore
from services.store.runs.dispatch_queues import DispatchQueues


class RulesInHand:
    """What a test puts in force; it stands where `LiveProject` does, which follows a file."""

    def __init__(self, rules: RuleSet, version: str) -> None:
        self._rules, self._version = rules, version

    def use(self, rules: RuleSet, version: str) -> None:
        """From now on."""
        self._rules, self._version = rules, version

    def rules(self) -> RuleSet:
        return self._rules

    def version(self) -> str:
        return self._version

    def judge(self, event: Event) -> tuple[Sequence[Verdict], str]:
        return evaluate(self._rules, event), self._version


class RouterRole:
    """The stores, the connections and the parts of one router process; it stands where `Shared` does."""

    def __init__(
        self,
        redis: AsyncRedis,
        *,
        consumer: str,
        submit: Callable[[ResumeSignal], Awaitable[None]],
        journal: JournalSettings,
        history: HistorySettings,
        dispatcher: DispatcherSettings | None = None,
    ) -> None:
        self.redis = redis
        self.settings = SimpleNamespace(history=history, dispatcher=dispatcher or DispatcherSettings())
        self.journal = Journal(redis, journal, consumer=consumer)
        self.dead_letters = DeadLetters(redis)
        self.history = History(redis, history)
        self.returns = FileReturns(redis, journal=journal, history=history)
        self.queues = DispatchQueues(redis)
        self.windows = WindowStore(redis, seen_seconds=60)
        self.transitions = EventTransitions(redis, retention_seconds=history.retention_seconds)
        self._submit = submit

    def submission(self) -> Any:
        """Where signals are handed in: the test's own."""
        return SimpleNamespace(submit=self._submit)

    def routing(self, rules: RulesInHand, poison_check: PoisonCheck | None = None) -> Parts:
        """`services.app.routing_parts`; without a ``poison_check``, no event is one that ends its process."""
        parked = ParkedEvents(self.redis)
        return routing_parts(
            self, rules, self.transitions, self.windows, parked, poison_check=poison_check or _harmless
        )

    def dispatch(self, rules: RulesInHand, prefect: PrefectApi) -> Parts:
        """`services.app.dispatch_parts`."""
        return dispatch_parts(self, prefect, rules, self.transitions, self.queues)


async def _harmless(_: Event) -> None: ...
