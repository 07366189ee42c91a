"""The overview in Prefect is one page, which is kept current."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest_asyncio

from config.settings import Settings
from events.dead_letter import DeadLetter
from services.operations.health import REMEMBERED_SECONDS
from services.operations.in_prefect.artifact import MarkdownArtifact
from services.operations.in_prefect.overview_job import OverviewJob
from services.operations.readiness import read_readiness
from services.operations.reporter import Reporter
from services.prefect_api.client import PrefectApi, connect
from services.store.connection import AsyncRedis
from services.store.dead_letters import DeadLetters
from services.store.lease import Lease

WATCH = {"path": "/data/inbox", "in_flight": 1, "done": 7, "failed": 2}

SETTINGS = Settings(expected_roles=("listeners",))


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


async def shown(prefect: PrefectApi, key: str) -> dict[str, Any]:
    """The only artifact with that key."""
    (found,) = await prefect.request("POST", "/artifacts/filter", json={"artifacts": {"key": {"any_": [key]}}})
    return dict(found)


async def test_the_overview_is_one_page_that_is_written_when_it_changes(redis: AsyncRedis, prefect: PrefectApi) -> None:
    role, key = Role(redis), f"sluice-overview-{uuid.uuid4().hex[:8]}"
    await role.report()
    flow = await prefect.request("POST", "/flows/", json={"name": "parked"})
    details = {"pause_key": "sluice-wait-1-o", "run_input_keyset": {"sluice_keys": '["order-7"]'}}
    state = {"type": "PAUSED", "state_details": details}
    run = await prefect.request("POST", "/flow_runs/", json={"flow_id": flow["id"], "name": "order 7", "state": state})
    job = OverviewJob(
        redis=redis,
        prefect=prefect,
        readiness=partial(read_readiness, redis, SETTINGS),
        lease=Lease(redis, "overview", ttl_seconds=30),
        artifact=MarkdownArtifact(prefect, key=key),
        project="shop",
    )
    await job.turn()
    await job.turn()
    assert job.status()["written"] == 1
    first = await shown(prefect, key)
    assert "## Sluice: shop" in first["data"]
    assert f"[order 7]({prefect.run_url(run['id'])}) | order-7 |" in first["data"]
    assert "| inbox | /data/inbox | hears | 1 | 7 | 2 |" in first["data"]
    await DeadLetters(redis).add(letter("shop", code="no-such-rule"))
    await job.turn()
    second = await shown(prefect, key)
    assert second["id"] == first["id"]
    assert "| no-such-rule | 1 | < 2 min | `sluice dead list --code no-such-rule` |" in second["data"]
    await prefect.request("DELETE", f"/artifacts/{first['id']}")
    await DeadLetters(redis).add(letter("shop", code="no-such-rule"))
    await job.turn()
    assert "| no-such-rule | 2 |" in (await shown(prefect, key))["data"]
    await prefect.request("DELETE", f"/flow_runs/{run['id']}")
