"""Prefect's events: following the states of runs, and publishing Sluice's own events."""

from __future__ import annotations

import asyncio
import contextlib
import random
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from prefect.events import Event as PrefectEvent
from prefect.events.filters import EventFilter, EventNameFilter, EventResourceFilter
from prefect.events.schemas.events import ResourceSpecification

from events.errors import Backpressure, SluiceError, TransientError
from events.identity import id_of
from services.common.backoff import Backoff, heed_cancellation
from services.prefect_api.client import PrefectApi
from services.prefect_api.runs import StateChange
from sluice.display import visible
from sluice.hearing import subscribed

MOST_RELATED: Final = 50
"""Prefect takes a hundred."""

_LONGEST_LABEL: Final = 300
_RULE: Final = "rule:"
_RUN: Final = "prefect.flow-run."
_TAG: Final = "prefect.tag."
_DEPLOYMENT: Final = "prefect.deployment."

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Connected:
    """The subscription is (again) live; whatever happened before must be found by polling."""


class StateFeed(ABC):
    """Follows the states of flow runs: by events at once, and by a poll that finds missed states.

    The events come over Prefect's websocket, at least once, in order for one run, and may be missing after a gap. So
    the poll runs at once after each (re)connection, after a state that could not be handled, and every
    ``poll_seconds``.
    """

    def __init__(self, *, doing: str, poll_seconds: float, state_types: Collection[str] = ()) -> None:
        """``doing`` describes the poll in the log; ``state_types``, if any, narrows what the server sends."""
        self._state_types = state_types
        self._poll_seconds = poll_seconds
        self._polls = Backoff(doing, first_seconds=0.5, longest_seconds=10)
        self._gap = asyncio.Event()
        self.connected = False
        """Whether Prefect has been reached by websocket."""

    @property
    def trouble(self) -> str | None:
        """Why the last poll failed."""
        return self._polls.trouble

    @abstractmethod
    async def changed(self, change: StateChange) -> None:
        """Handle a state. On `TransientError` and `Backpressure` a poll follows, which must find it."""

    @abstractmethod
    async def poll(self, *, gap: bool) -> None:
        """Find missed states; ``gap``: events may be missing since the last poll. Repeated on a `SluiceError`."""

    async def follow(self) -> None:
        """Receive and poll until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._receive())
            tasks.create_task(self._poll_for_ever())

    async def _receive(self) -> None:
        """Pass on state changes from the websocket; a poll fills the gap before a connection or a failed change."""
        # Closed here and not by the garbage collector, which leaves the connection open.
        async with contextlib.aclosing(state_changes(state_types=self._state_types)) as changes:
            async for change in changes:
                heed_cancellation()
                if isinstance(change, Connected):
                    self.connected = True
                    self._gap.set()
                    continue
                try:
                    await self.changed(change)
                except (TransientError, Backpressure):
                    if self.trouble is None:  # else a poll follows anyway
                        self._gap.set()

    async def _poll_for_ever(self) -> None:
        """Poll at an interval, and at once after a gap of the websocket."""
        gap = True
        while True:
            self._gap.clear()
            pause = self._poll_seconds
            try:
                await self.poll(gap=gap)
                self._polls.worked()
            except SluiceError as error:
                pause = self._polls.failed(error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._gap.wait(), pause)
            heed_cancellation()
            gap = self._gap.is_set() or self.trouble is not None


async def state_changes(
    *, state_types: Collection[str] = (), backoff_seconds: float = 0.2, max_backoff_seconds: float = 10.0
) -> AsyncGenerator[StateChange | Connected, None]:
    """Yield flow-run state changes as Prefect publishes them; `Connected` comes before the first and after a gap.

    ``state_types`` restricts the types of states; the server does not send others. Tags are those of the run's
    creation, as Prefect caches them.
    """
    types = ResourceSpecification(root={"prefect.state-type": sorted(state_types)}) if state_types else None
    narrowed = EventFilter(
        event=EventNameFilter(prefix=["prefect.flow-run."]),
        resource=EventResourceFilter(id_prefix=["prefect.flow-run."], labels=types),
    )
    wait = backoff_seconds
    while True:
        try:
            async with subscribed(narrowed) as events:
                yield Connected()
                wait = backoff_seconds
                async for event in events:
                    change = _state_change(event)
                    if change is not None:
                        yield change
        except (GeneratorExit, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001 - the client raises bare Exception too; nothing may end the watch
            log.warning("prefect event stream lost, connecting again", error=str(error), in_seconds=round(wait, 1))
        await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        wait = min(wait * 2, max_backoff_seconds)


def feed_event(
    event: str,
    *,
    resource: str,
    payload: Mapping[str, Any],
    name: str | None = None,
    related: Sequence[Mapping[str, str]] = (),
    event_id: str | None = None,
    occurred: datetime | None = None,
) -> dict[str, Any]:
    """Return the body of a Prefect event of Sluice about a ``resource`` with a ``name``, and related resources."""
    about = {"prefect.resource.id": _label(resource)}
    body: dict[str, Any] = {
        "event": event,
        "occurred": (occurred or datetime.now(UTC)).isoformat(),
        "resource": about | ({"prefect.resource.name": _label(name)} if name else {}),
        "related": list(related)[:MOST_RELATED],
        "payload": {key: value for key, value in payload.items() if value is not None},
    }
    if event_id is not None:
        body["id"] = event_id
    return body


def run_event(event: str, *, run_id: str, payload: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """`feed_event` about the flow run ``run_id``, so that its page shows it."""
    return feed_event(event, resource=f"prefect.flow-run.{run_id}", payload=payload, **options)


def related(role: str, resource: str, name: str | None = None) -> dict[str, str]:
    """Return a related resource of an event; automations can match its id and its role.

    Prefect's UI shows the kind of its own resources; our names contain it.
    """
    found = {"prefect.resource.id": _label(resource), "prefect.resource.role": role}
    shown = f"{role} {name}" if name and resource.startswith("sluice.") else name
    return found | ({"prefect.resource.name": _label(shown)} if shown else {})


def event_resource(identity: str) -> dict[str, str]:
    """Return the event of that identity as a related resource."""
    return related("event", f"sluice.event.{identity}", id_of(identity))


def _label(text: str) -> str:
    return visible(text, _LONGEST_LABEL)


async def emit(api: PrefectApi, events: Sequence[Mapping[str, Any]]) -> None:
    """Publish events (see `run_event`) to Prefect in one call."""
    if events:
        await api.request("POST", "/events", once=True, json=list(events))


async def emit_with_deployments(api: PrefectApi, events: Sequence[Mapping[str, Any]]) -> None:
    """`emit`, and add the deployment, flow and rule of each event's run to its related resources."""
    ids = [one["resource"]["prefect.resource.id"] for one in events]
    run_ids = sorted({id_.removeprefix(_RUN) for id_ in ids if id_.startswith(_RUN)})
    known: dict[str, dict[str, Any]] = {}
    for start in range(0, len(run_ids), MOST_RELATED):
        asked = {"flow_runs": {"id": {"any_": run_ids[start : start + MOST_RELATED]}}}
        found = await api.request("POST", "/flow_runs/filter", once=True, json=asked)
        known |= {f"{_RUN}{run['id']}": run for run in found}
    await emit(api, [_of_run(one, known.get(id_)) for one, id_ in zip(events, ids, strict=True)])


def _of_run(event: Mapping[str, Any], run: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if run is None:
        return event
    found = [related("flow", f"prefect.flow.{run['flow_id']}")]
    if run.get("deployment_id"):
        found.append(related("deployment", f"{_DEPLOYMENT}{run['deployment_id']}"))
    found += [
        related("rule", f"sluice.rule.{tag.removeprefix(_RULE)}", tag.removeprefix(_RULE))
        for tag in run.get("tags") or ()
        if tag.startswith(_RULE)
    ]
    named = {**event["resource"], "prefect.resource.name": _label(run["name"])}
    return {**event, "resource": named, "related": [*event["related"], *found][:MOST_RELATED]}


def _state_change(event: PrefectEvent) -> StateChange | None:
    """Return the state change of an event in Prefect's feed; None if it is about something else."""
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
