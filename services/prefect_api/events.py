"""Prefect's event stream: state changes as they happen, and Sluice's own events on the runs' pages."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from prefect.events import Event as PrefectEvent
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventFilter, EventNameFilter, EventResourceFilter
from prefect.events.schemas.events import ResourceSpecification

from services.prefect_api.client import PrefectApi

_TAG: Final = "prefect.tag."
_DEPLOYMENT: Final = "prefect.deployment."

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class StateChange:
    """A flow run entered a state. ``state_type`` is Prefect's (SCHEDULED, PAUSED, …), ``state_name`` its label."""

    run_id: str
    state_id: str
    state_type: str
    state_name: str
    occurred: datetime
    deployment_id: str | None
    tags: tuple[str, ...]
    message: str = ""


@dataclass(frozen=True, slots=True)
class Connected:
    """The subscription is (again) live; whatever happened before must be found by polling."""


async def state_changes(
    *,
    state_names: Sequence[str] = (),
    state_types: Sequence[str] = (),
    backoff_seconds: float = 0.2,
    max_backoff_seconds: float = 10.0,
) -> AsyncIterator[StateChange | Connected]:
    """Flow-run state changes as Prefect publishes them, for ever; `Connected` stands before the first and after a gap.

    ``state_names`` narrows by the state's *name* (events are called after it), ``state_types`` by its type; what is
    ruled out is not even sent by the server. At least once, in order for one run, no promise across a gap:
    the caller polls after each `Connected`. Tags are those of the run's creation, as Prefect caches them.
    """
    names = EventNameFilter(name=[f"prefect.flow-run.{name}" for name in state_names])
    types = ResourceSpecification(root={"prefect.state-type": list(state_types)}) if state_types else None
    narrowed = EventFilter(
        event=names if state_names else EventNameFilter(prefix=["prefect.flow-run."]),
        resource=EventResourceFilter(id_prefix=["prefect.flow-run."], labels=types),
    )
    wait = backoff_seconds
    while True:
        try:
            async with get_events_subscriber(filter=narrowed, reconnection_attempts=0) as subscriber:
                yield Connected()
                wait = backoff_seconds
                async for event in subscriber:
                    change = _state_change(event)
                    if change is not None:
                        yield change
        except (GeneratorExit, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001 - the client raises bare Exception too; nothing may end the watch
            log.warning("prefect event stream lost, connecting again", error=str(error), in_seconds=round(wait, 1))
        await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        wait = min(wait * 2, max_backoff_seconds)


def run_event(
    event: str,
    *,
    run_id: str,
    payload: Mapping[str, Any],
    event_id: str | None = None,
    occurred: datetime | None = None,
) -> dict[str, Any]:
    """The body of a Prefect event of Sluice whose subject is the flow run ``run_id``, so that its page shows it."""
    body: dict[str, Any] = {
        "event": event,
        "occurred": (occurred or datetime.now(UTC)).isoformat(),
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run_id}"},
        "related": [],
        "payload": dict(payload),
    }
    if event_id is not None:
        body["id"] = event_id
    return body


async def emit(api: PrefectApi, events: Sequence[Mapping[str, Any]]) -> None:
    """Publish events (see `run_event`) to Prefect in one call."""
    if events:
        await api.request("POST", "/events", once=True, json=list(events))


def _state_change(event: PrefectEvent) -> StateChange | None:
    resource = event.resource
    state_type = resource.get("prefect.state-type")
    if not state_type:
        return None
    tags: list[str] = []
    deployment: str | None = None
    for related in event.related:
        if related.id.startswith(_TAG):
            tags.append(related.id.removeprefix(_TAG))  # which may hold dots
        elif related.id.startswith(_DEPLOYMENT):
            deployment = related.id.removeprefix(_DEPLOYMENT)
    return StateChange(
        run_id=resource.id.removeprefix("prefect.flow-run."),
        state_id=str(event.id),
        state_type=state_type,
        state_name=resource.get("prefect.state-name") or "",
        occurred=event.occurred,
        deployment_id=deployment,
        tags=tuple(tags),
        message=resource.get("prefect.state-message") or "",
    )
