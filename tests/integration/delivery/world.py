"""The middle of Sluice, and deployments that exist without ever being executed."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from config.runs import DispatcherSettings
from config.settings import HistorySettings, JournalSettings
from events.event import Event
from events.rule import Rule, RuleSet
from events.rule_model import RuleSpec
from events.signal import ResumeSignal
from services.dispatch.dispatcher import Dispatcher
from services.prefect_api.client import PrefectApi
from services.routing.decisions import PoisonCheck
from services.routing.router import Router
from services.routing.rule_windows import RuleWindows
from services.store.connection import AsyncRedis
from services.store.events.finished_events import FINISHED
from services.store.events.journal import Appended
from services.store.runs.created_runs import CreatedRuns
from tests.support.router_role import RouterRole, RulesInHand

SCHEMA = {
    "type": "object",
    "properties": {"amount": {"type": "integer"}, "note": {"type": "string"}, "more": {}},
    "required": ["amount"],
    "additionalProperties": False,
}
RULE = {"name": "pay", "on": "order.*", "run": "", "parameters": {"amount": "{{ event.data.amount }}"}}


@dataclass
class World:
    """One router process's parts; `use` changes its rules at any time."""

    redis: AsyncRedis
    prefect: PrefectApi
    journal_settings: JournalSettings = field(default_factory=JournalSettings)
    dispatcher_settings: DispatcherSettings = field(default_factory=DispatcherSettings)
    history_settings: HistorySettings = field(default_factory=HistorySettings)
    consumer: str = "router-1"
    poison_check: PoisonCheck | None = None
    signals: list[ResumeSignal] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rules = RulesInHand(RuleSet(), "none")
        role = RouterRole(
            self.redis,
            consumer=self.consumer,
            submit=self._take_signal,
            journal=self.journal_settings,
            history=self.history_settings,
            dispatcher=self.dispatcher_settings,
        )
        self.journal, self.queues, self.progress = role.journal, role.queues, role.transitions
        self.dead, self.history, self.returns = role.dead_letters, role.history, role.returns
        self.runs = CreatedRuns(self.redis)
        self.parts = {**role.routing(self.rules, self.poison_check), **role.dispatch(self.rules, self.prefect)}
        router, windows, dispatcher = (self.parts[name] for name in ("router", "windows", "dispatcher"))
        assert isinstance(router, Router)
        assert isinstance(windows, RuleWindows)
        assert isinstance(dispatcher, Dispatcher)
        self.router, self.windows, self.dispatcher = router, windows, dispatcher
        self.outcomes = self.parts["outcomes"]

    def use(self, *specs: dict[str, Any]) -> None:
        """Put these rules in force."""
        self.rules.use(RuleSet(Rule(RuleSpec.model_validate(spec)) for spec in specs), uuid.uuid4().hex[:8])

    async def publish(self, *events: Event) -> list[Appended]:
        """Journal events as a listener does."""
        return await self.journal.append(events, received=datetime.now(UTC).isoformat(), listener="test:world")

    @asynccontextmanager
    async def running(self, *names: str) -> AsyncIterator[None]:
        """Run the parts (all of them, unless some are named) for the time of the block."""
        tasks = [asyncio.create_task(self.parts[name].run(), name=name) for name in names or self.parts]
        try:
            yield
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def finished(self) -> list[dict[str, Any]]:
        """What the stream of finished events holds."""
        return [json.loads(fields[b"finished"]) for _, fields in await self.redis.xrange(FINISHED)]

    async def _take_signal(self, signal: ResumeSignal) -> None:
        self.signals.append(signal)


async def deployment(api: PrefectApi, *, name: str | None = None, schema: dict[str, Any] | None = None) -> str:
    """Register a deployment that nothing executes; answers its ``flow/deployment`` name."""
    flow_name = name or f"flow-{uuid.uuid4().hex[:8]}"
    flow = await api.request("POST", "/flows/", json={"name": flow_name})
    await api.request(
        "POST",
        "/deployments/",
        json={
            "name": "default",
            "flow_id": flow["id"],
            "enforce_parameter_schema": True,
            "parameter_openapi_schema": schema or SCHEMA,
            "tags": ["theirs"],
        },
    )
    return f"{flow_name}/default"


async def runs_of(api: PrefectApi, deployment_name: str) -> list[dict[str, Any]]:
    """The runs of a deployment that Prefect has, in the order of creation."""
    rows: list[dict[str, Any]] = []
    flow = deployment_name.partition("/")[0]
    while True:
        body = {"flows": {"name": {"any_": [flow]}}, "sort": "ID_DESC", "limit": 200, "offset": len(rows)}
        page = await api.request("POST", "/flow_runs/filter", json=body)
        rows += page
        if len(page) < 200:
            return sorted(rows, key=lambda row: row["created"])


async def made(api: PrefectApi, deployment_name: str, count: int) -> bool:
    """Whether Prefect has at least so many runs of a deployment; cheap to ask, however many they are."""
    flow = deployment_name.partition("/")[0]
    found: int = await api.request("POST", "/flow_runs/count", json={"flows": {"name": {"any_": [flow]}}})
    return found >= count


async def set_state(api: PrefectApi, run_id: str, type_: str, *, name: str | None = None, message: str = "") -> None:
    """Put a run into a state, whatever Prefect's rules say."""
    state = {"type": type_, "name": name or type_.title(), "message": message}
    await api.request("POST", f"/flow_runs/{run_id}/set_state", json={"state": state, "force": True})


def order(amount: Any = 1, *, id_: str | None = None, type_: str = "order.placed", **data: Any) -> Event:
    """An event that the usual rule turns into a run."""
    return Event(
        id=id_ or str(uuid.uuid4()),
        source="shop",
        type=type_,
        subject="order",
        time=datetime.now(UTC),
        data={"amount": amount, **data},
    )


def orders(count: int) -> Sequence[Event]:
    """Events whose amounts number them."""
    return [order(index) for index in range(count)]
