"""Values that the tests of the stores need."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from events.action import RunDeployment
from events.event import Event
from services.store.connection import AsyncRedis
from services.store.event_transitions import Routed
from services.store.events.event_history import compact_json
from services.store.events.finished_events import FINISHED
from services.store.events.journal import Journal
from services.store.runs.dispatch_queues import Dispatch, dispatch_of

RECEIVED = "2026-01-02T03:04:05+00:00"


def event(id_: str = "e1", type_: str = "order.placed", **data: Any) -> Event:
    return Event(id=id_, source="shop", type=type_, subject="s", time=datetime.now(UTC), data=data)


async def pending(journal: Journal, *events: Event) -> list[str]:
    """Journal the events and let the journal's consumer have them in hand; answers their positions."""
    positions = [one.position for one in await journal.append(events, received=RECEIVED, listener="test")]
    await journal.read(count=len(events))
    return positions


def dispatch(one: Event, position: str, *, rule: str = "pay", **fields: Any) -> Dispatch:
    own = {"rule": rule, "identities": (one.identity,), "deployment": "flow/d"}
    action = RunDeployment.model_validate(own | fields)
    return dispatch_of(action, [(one, position)])


def name(id_: str) -> str:
    """The identity of what `event` makes with this id."""
    return event(id_).identity


def routed(id_: str, position: str, **fields: Any) -> Routed:
    """An entry's outcome with a history line that says so."""
    matched = fields.pop("matched", ())
    own = [[index, rule] for index, rule in enumerate(matched)]
    line = compact_json(["v", 1_767_000_000_000, position, "v1", "", own])
    return Routed(identity=name(id_), position=position, lines=[line], matched=matched, **fields)


async def finished(redis: AsyncRedis) -> list[dict[str, Any]]:
    return [json.loads(fields[b"finished"]) for _, fields in await redis.xrange(FINISHED)]
