"""State changes are read off Prefect's events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from prefect.events import Event, RelatedResource, Resource

from events.errors import TransientError
from services.prefect_api import events
from services.prefect_api.events import Connected, StateFeed, state_changes
from services.prefect_api.runs import StateChange
from tests.support.waiting import eventually

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
    async def subscriber(_: object) -> AsyncIterator[AsyncIterator[Event]]:
        yield told()

    monkeypatch.setattr(events, "subscribed", subscriber)
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


class Feed(StateFeed):
    """Notes what it is told and asked; the first poll and the first state fail where it is ``frail``."""

    def __init__(self, *, frail: bool = False, poll_seconds: float = 600) -> None:
        super().__init__(doing="poll in a test", poll_seconds=poll_seconds)
        self._frail = {"changed", "poll"} if frail else set()
        self.seen: list[str] = []

    async def changed(self, change: StateChange) -> None:
        self.seen.append(change.run_id)
        self._fail("changed")

    async def poll(self, *, gap: bool) -> None:
        self.seen.append("poll after a gap" if gap else "poll")
        self._fail("poll")

    def _fail(self, what: str) -> None:
        if what in self._frail:
            self._frail.remove(what)
            raise TransientError("out of reach")


async def _followed(monkeypatch: pytest.MonkeyPatch, feed: Feed, count: int, *told: StateChange | Connected) -> None:
    async def changes(**_: object) -> AsyncIterator[StateChange | Connected]:
        for one in told:
            await eventually(lambda: asyncio.sleep(0, bool(feed.seen)))  # after the poll at the start
            yield one
        await asyncio.Event().wait()

    monkeypatch.setattr(events, "state_changes", changes)
    following = asyncio.create_task(feed.follow())
    await eventually(lambda: asyncio.sleep(0, len(feed.seen) >= count))
    following.cancel()
    await asyncio.wait({following})


CHANGE = StateChange(RUN, "s", "PAUSED", "Paused", datetime.now(UTC))


async def test_a_poll_follows_each_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Feed()
    await _followed(monkeypatch, feed, 2, Connected())
    assert feed.seen == ["poll after a gap", "poll after a gap"]
    assert feed.connected


async def test_without_a_gap_the_poll_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Feed(poll_seconds=0.01)
    await _followed(monkeypatch, feed, 2)
    assert feed.seen[:2] == ["poll after a gap", "poll"]


async def test_a_state_that_could_not_be_handled_is_looked_for_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Feed(frail=True)
    feed._frail.remove("poll")
    await _followed(monkeypatch, feed, 3, CHANGE)
    assert feed.seen == ["poll after a gap", RUN, "poll after a gap"]


async def test_a_poll_that_failed_is_repeated_as_after_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = Feed(frail=True)
    feed._frail.remove("changed")
    await _followed(monkeypatch, feed, 2)
    assert feed.seen == ["poll after a gap", "poll after a gap"]
    assert feed.trouble is None


async def test_the_connection_is_closed_when_its_reader_ends_while_it_handles_a_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Left to the garbage collector, it would be open until that comes."""
    open_ones: list[str] = []

    @asynccontextmanager
    async def subscribed(_: object) -> AsyncIterator[AsyncIterator[Event]]:
        async def told() -> AsyncIterator[Event]:
            yield _event([])

        open_ones.append("connection")
        try:
            yield told()
        finally:
            open_ones.remove("connection")

    class Slow(Feed):
        async def changed(self, change: StateChange) -> None:
            await super().changed(change)
            await asyncio.Event().wait()

    kept: list[object] = []  # as a traceback would keep it

    def keep(**options: Any) -> Any:
        kept.append(state_changes(**options))
        return kept[-1]

    monkeypatch.setattr(events, "subscribed", subscribed)
    monkeypatch.setattr(events, "state_changes", keep)
    feed = Slow()
    following = asyncio.create_task(feed.follow())
    await eventually(lambda: asyncio.sleep(0, RUN in feed.seen))
    assert open_ones
    following.cancel()
    await asyncio.wait({following})
    assert not open_ones
