"""What happens beyond runs is told in Prefect's event feed."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
import pytest_asyncio

from config.health import CanarySettings
from config.settings import Settings
from events.dead_letter import DeadLetter
from events.errors import TransientError
from services.operations.health import REMEMBERED_SECONDS
from services.operations.in_prefect import feed as feed_module
from services.operations.in_prefect.feed import PrefectFeed
from services.operations.in_prefect.feed_state import FeedState, write_feed_state
from services.operations.in_prefect.parts import in_prefect
from services.operations.readiness import read_readiness
from services.operations.reporter import Reporter
from services.prefect_api.client import PrefectApi, connect
from services.store.canary.flights import CanaryFlight, CanaryRecords
from services.store.connection import AsyncRedis
from services.store.dead_letters import DeadLetters
from services.store.lease import Lease
from tests.support.waiting import eventually

WATCH = {"path": "/data/inbox", "in_flight": 1, "done": 7, "failed": 2}

SETTINGS = Settings(expected_roles=("listeners",))

GONE = {"watch-gone": "/data/inbox is not there"}


class Role:
    """The reports of one role, whose parts say what the test wants."""

    def __init__(self, redis: AsyncRedis) -> None:
        self._redis = redis
        self.parts: dict[str, dict[str, Any]] = {"files:inbox": dict(WATCH), "dispatcher": {"held": []}}
        statuses: Mapping[str, Callable[[], Mapping[str, Any]]] = {
            name: partial(self.parts.__getitem__, name) for name in self.parts
        }
        self.reporter = Reporter(role="listeners", redis=redis, parts=statuses)

    async def report(self) -> None:
        await self._redis.set(self.reporter.key, json.dumps(self.reporter.report()), ex=REMEMBERED_SECONDS)


@pytest_asyncio.fixture
async def prefect(prefect_url: str) -> AsyncIterator[PrefectApi]:
    async with connect(prefect_url) as api:
        yield api


def feed_on(redis: AsyncRedis, prefect: PrefectApi) -> PrefectFeed:
    readiness = partial(read_readiness, redis, SETTINGS)
    lease = Lease(redis, "prefect-feed", ttl_seconds=30)
    return PrefectFeed(redis=redis, prefect=prefect, readiness=readiness, lease=lease, settle_seconds=0)


def letter(source: str, code: str = "not-json") -> DeadLetter:
    now = datetime.now(UTC)
    known = {"rule": "pay", "identity": f"o-1@{source}", "event_id": "o-1"}
    return DeadLetter(
        id=uuid.uuid4().hex[:20],
        kind="event",
        code=code,
        reason="it is no JSON",
        source=source,
        raw=b"{",
        first_failed=now,
        last_failed=now,
        **known,
    )


async def told(prefect: PrefectApi, resource: str, count: int) -> list[dict[str, Any]]:
    """The events about the resource, the oldest first, once there are so many."""
    asked = {"filter": {"resource": {"id": [resource]}, "event": {"prefix": ["sluice."]}, "order": "ASC"}}

    async def probe() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await prefect.request("POST", "/events/filter", json=asked))["events"]
        return found if len(found) >= count else []

    found = await eventually(probe, what=f"{count} events about {resource}")
    assert len(found) == count
    return found


async def test_what_breaks_and_is_mended_is_told_once(redis: AsyncRedis, prefect: PrefectApi) -> None:
    role, rule, watch = Role(redis), f"r-{uuid.uuid4().hex[:8]}", f"w-{uuid.uuid4().hex[:8]}"
    role.parts[f"files:{watch}"] = dict(WATCH)
    role.reporter._parts = {name: partial(role.parts.__getitem__, name) for name in role.parts}
    feed = feed_on(redis, prefect)
    await role.report()
    await feed.turn()
    assert feed.status()["told"] == 0

    role.parts[f"files:{watch}"]["reasons"] = GONE
    role.parts["dispatcher"]["held"] = [{"rule": rule, "waiting": 3, "reason": "most runs fail"}]
    await role.report()
    await feed.turn()
    await feed.turn()
    await feed_on(redis, prefect).turn()  # another router, which goes on
    (gone,) = await told(prefect, f"sluice.watch.{watch}", 1)
    assert (gone["event"], gone["payload"]["message"]) == ("sluice.watch.gone", "/data/inbox is not there")
    assert "bring the folder back" in gone["payload"]["remedy"]
    (held,) = await told(prefect, f"sluice.rule.{rule}", 1)
    assert (held["event"], held["resource"]["prefect.resource.name"]) == ("sluice.rule.held", f"rule {rule}")

    del role.parts[f"files:{watch}"]["reasons"]
    role.parts["dispatcher"]["held"] = []
    await role.report()
    later = feed_on(redis, prefect)
    await later.turn()
    assert [one["event"] for one in await told(prefect, f"sluice.watch.{watch}", 2)][1] == "sluice.watch.back"
    (_, released) = await told(prefect, f"sluice.rule.{rule}", 2)
    assert released["event"] == "sluice.rule.released"
    assert set(released["payload"]) == {"code", "message", "lasted_seconds"}

    await role.reporter.say_goodbye()
    await later.turn()
    await role.report()
    await later.turn()
    events = [one["event"] for one in await told(prefect, "sluice.role.listeners", 2)]
    assert events == ["sluice.role.down", "sluice.role.back"]
    events = [one["event"] for one in await told(prefect, "sluice.installation", 4)]
    assert events == ["sluice.installation.not-ready", "sluice.installation.ready"] * 2


async def test_a_canary_that_failed_is_told(redis: AsyncRedis, prefect: PrefectApi) -> None:
    settings = SETTINGS.model_copy(update={"canary": CanarySettings(enabled=True)})
    await Role(redis).report()
    flight = CanaryFlight(at=time.time(), failed="resume", seconds={}, instance=uuid.uuid4().hex)
    await CanaryRecords(redis).ended(flight)
    feed = in_prefect(redis, prefect, settings=settings, project=None)["feed"]
    assert isinstance(feed, PrefectFeed)
    before = await canary_events(prefect)
    await feed.turn()

    async def more() -> list[str]:
        return (await canary_events(prefect))[len(before) :]

    assert await eventually(more) == ["sluice.canary.failed"]


async def canary_events(prefect: PrefectApi) -> list[str]:
    asked = {"filter": {"resource": {"id": ["sluice.canary"]}, "order": "ASC"}}
    return [one["event"] for one in (await prefect.request("POST", "/events/filter", json=asked))["events"]]


async def test_dead_letters_are_told_with_what_they_have_to_do_with(redis: AsyncRedis, prefect: PrefectApi) -> None:
    letters, source = DeadLetters(redis), f"shop-{uuid.uuid4().hex[:8]}"
    await letters.add(letter(source).model_copy(update={"last_failed": datetime(2020, 1, 1, tzinfo=UTC)}))
    feed = feed_on(redis, prefect)
    await feed.turn()  # what failed before is not news
    mine = [letter(source) for _ in range(3)]
    for one in mine:
        await letters.add(one)
    await feed.turn()
    await feed_on(redis, prefect).turn()
    for one in mine:
        (event,) = await told(prefect, f"sluice.dead-letter.{one.id}", 1)
        assert event["event"] == "sluice.dead-letter.kept"
        assert event["payload"]["look"] == f"sluice dead show {one.id}"
        related = {other["prefect.resource.role"]: other["prefect.resource.id"] for other in event["related"]}
        event_id = f"sluice.event.o-1@{source}"
        assert related == {"rule": "sluice.rule.pay", "event": event_id, "source": f"sluice.source.{source}"}
    again = mine[0].model_copy(update={"last_failed": datetime.now(UTC)})
    await letters.add(again)
    await feed.turn()
    await told(prefect, f"sluice.dead-letter.{again.id}", 2)


async def test_a_dead_letter_that_is_kept_late_or_while_no_router_is_there_is_told(
    redis: AsyncRedis, prefect: PrefectApi
) -> None:
    letters, source = DeadLetters(redis), f"shop-{uuid.uuid4().hex[:8]}"
    await Role(redis).report()
    await feed_on(redis, prefect).turn()
    first = letter(source)
    await letters.add(first)
    await feed_on(redis, prefect).turn()
    await told(prefect, f"sluice.dead-letter.{first.id}", 1)

    await write_feed_state(redis, FeedState(letters_ms=int(first.last_failed.timestamp() * 1000) - 3_600_000))
    newest = letter(source)
    await letters.add(newest)
    await feed_on(redis, prefect).turn()
    late = letter(source).model_copy(update={"last_failed": newest.last_failed - timedelta(seconds=50)})
    await letters.add(late)
    feed = feed_on(redis, prefect)
    await feed.turn()
    await feed.turn()
    assert feed.status()["told"] == 1
    for one in (first, newest, late):
        await told(prefect, f"sluice.dead-letter.{one.id}", 1)


async def test_while_prefect_is_away_no_more_is_kept_than_fits(
    redis: AsyncRedis, prefect: PrefectApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "_MOST_PENDING", 3)
    monkeypatch.setattr(feed_module, "_MOST_LETTERS", 2)
    role, letters, source = Role(redis), DeadLetters(redis), f"shop-{uuid.uuid4().hex[:8]}"
    await role.report()
    await feed_on(redis, prefect).turn()
    async with connect("http://127.0.0.1:9/api") as away:
        feed = feed_on(redis, away)
        for _ in range(2):
            for reasons in (GONE, {}):
                role.parts["files:inbox"]["reasons"] = reasons
                await role.report()
                with pytest.raises(TransientError):
                    await feed.turn()
    assert feed.status() == {"told": 0, "waiting": 3, "dropped": 5}
    mine = [letter(source) for _ in range(5)]
    for nth, one in enumerate(mine):
        failed = datetime.fromtimestamp(one.last_failed.timestamp() + nth / 100, UTC)
        await letters.add(one.model_copy(update={"last_failed": failed}))
    feed.prefect = prefect
    await feed.turn()
    assert feed.status() == {"told": 5, "waiting": 0, "dropped": 8}
    await told(prefect, f"sluice.dead-letter.{mine[-1].id}", 1)
