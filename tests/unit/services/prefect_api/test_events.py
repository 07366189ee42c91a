"""State changes are read off Prefect's events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from prefect.events import Event, RelatedResource, Resource

from services.prefect_api import events
from services.prefect_api.events import Connected, StateChange, state_changes

RUN = "8d1c7cf4-50c5-4a6e-9f2b-7f7b8a1f3b11"
DEPLOYMENT = "b4a6a0c7-0f0e-4a55-8f9e-2c8f4f0f9c22"


def _event(related: Sequence[str]) -> Event:
    resource = {
        "prefect.resource.id": f"prefect.flow-run.{RUN}",
        "prefect.state-type": "PAUSED",
        "prefect.state-name": "Paused",
    }
    return Event(
        event="prefect.flow-run.Paused",
        resource=Resource(resource),
        related=[RelatedResource({"prefect.resource.id": id_, "prefect.resource.role": "tag"}) for id_ in related],
    )


async def _heard(monkeypatch: pytest.MonkeyPatch, event: Event) -> StateChange:
    async def told() -> AsyncIterator[Event]:
        yield event

    @asynccontextmanager
    async def subscriber(**_: object) -> AsyncIterator[AsyncIterator[Event]]:
        yield told()

    monkeypatch.setattr(events, "get_events_subscriber", subscriber)
    async for change in state_changes():
        if not isinstance(change, Connected):
            return change
    raise AssertionError("the stream has no end")


async def test_tags_with_dots_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    tags = ["sluice", "event:order.1042@shop", "source:redis/a.b.c"]
    related = [*(f"prefect.tag.{tag}" for tag in tags), f"prefect.deployment.{DEPLOYMENT}", "prefect.flow.f"]
    change = await _heard(monkeypatch, _event(related))
    assert change.tags == tuple(tags)
    assert change.deployment_id == DEPLOYMENT
    assert change.run_id == RUN
