"""Bad input over HTTP: no answer of 5xx, no event lost or taken twice, and slow callers keep nobody else out."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import psutil
import pytest

from config.api import ApiSettings
from config.settings import ResumerSettings, Settings
from config.sources import HookSource
from services.api.build import build_routers
from services.listeners.http.bodies import CLOUDEVENT
from services.listeners.http.hooks.receiver import hooks_with_secrets
from services.signals.submission import SignalSubmission
from services.store.access.hook_deliveries import HookDeliveries
from services.store.access.tokens import AccessTokens
from services.store.connection import AsyncRedis, connect_sync
from services.store.signals.signals import SignalStore
from tests.support.bad_input import ask_oddly, bombard
from tests.support.sources import cloudevent
from tests.support.waiting import eventually
from tests.unit.services.listeners.http.serving import LIMITS, Site, post, serving

SHOP = HookSource(verify="shared-secret", secret_env="SHOP", type="shop")


@asynccontextmanager
async def whole_api(
    redis: AsyncRedis, valkey_url: str, settings: ApiSettings
) -> AsyncIterator[tuple[Site, httpx.AsyncClient]]:
    async def no_prefect() -> Any:
        raise AssertionError("nothing that is malformed is asked of Prefect")

    rq_redis = connect_sync(valkey_url, Settings().redis)
    store = SignalStore(redis, ResumerSettings())
    submission = SignalSubmission(store=store, rq_redis=rq_redis, limits=LIMITS)
    site = Site(
        redis,
        settings,
        hooks=hooks_with_secrets({"shop": SHOP}, {"SHOP": "s3cret"}),
        deliveries=HookDeliveries(redis),
        tokens=AccessTokens(redis),
        routers=build_routers(redis, Settings(), submission, no_prefect, None),
    )
    async with serving(site) as client:
        client.headers["authorization"] = f"Bearer {settings.token}"
        yield site, client
    rq_redis.close()


async def check(site: Site, client: httpx.AsyncClient, count: int, *, seed: int) -> Counter[int]:
    found = await bombard(client, count, seed=seed)
    assert found.wrong == []
    assert found.statuses.total() == count
    held = Counter((event["source"], event["id"]) for event in await site.door.events())
    assert {source_id for source_id, times in held.items() if times > 1} == set()
    assert found.taken <= set(held)
    assert (await post(client, "/events", cloudevent(f"after-{seed}"), CLOUDEVENT)).status_code == 202
    return found.statuses


async def test_malformed_requests_are_explained_and_lose_and_double_nothing(redis: AsyncRedis, valkey_url: str) -> None:
    async with whole_api(redis, valkey_url, ApiSettings(token="own")) as (site, client):
        statuses = await check(site, client, 400, seed=1)
        document = (await client.get("/openapi.json")).json()
        asked = await ask_oddly(client, document, seed=1, without="/runs")
    assert {202, 400, 404, 415} <= set(statuses)
    assert asked.wrong == []
    assert {200, 400, 404, 422} <= set(asked.statuses)


async def slow_ones(port: int, count: int) -> list[asyncio.StreamWriter]:
    """Connections that have sent half of their headers."""
    writers = []
    for _ in range(count):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /events HTTP/1.1\r\nhost: localhost\r\nauthoriz")
        writers.append(writer)
    return writers


async def test_beyond_the_limit_of_connections_the_answer_is_503_until_slow_ones_are_ended(
    redis: AsyncRedis, valkey_url: str
) -> None:
    settings = ApiSettings(token="own", max_connections=20, header_timeout_seconds=1.0)
    async with whole_api(redis, valkey_url, settings) as (site, client):
        assert site.listener.port
        writers = await slow_ones(site.listener.port, 30)
        refused = await client.get("/health/live")
        assert (refused.status_code, refused.json()["code"]) == (503, "too-many-connections")
        assert refused.headers["retry-after"]

        async def served() -> bool:
            return (await client.get("/health/live")).status_code == 200

        await eventually(served, what="slow connections are ended")
        for writer in writers:
            writer.close()


async def test_what_is_no_http_is_a_problem_too(redis: AsyncRedis, valkey_url: str) -> None:
    async with whole_api(redis, valkey_url, ApiSettings(token="own")) as (site, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.listener.port)
        writer.write(b"\x16\x03\x01 nonsense\r\n\r\n")
        said = await asyncio.wait_for(reader.read(), 10)
        writer.close()
    assert said.startswith(b"HTTP/1.1 400")
    assert b"application/problem+json" in said
    assert b"what_to_do" in said


@pytest.mark.soak
async def test_ten_thousand_malformed_requests_leave_the_memory_as_it_was(redis: AsyncRedis, valkey_url: str) -> None:
    """The client is in this process too: what is measured is more than the API holds."""
    async with whole_api(redis, valkey_url, ApiSettings(token="own")) as (site, client):
        sizes = []
        for seed in range(2, 12):
            site.letters.by_id.clear()
            await check(site, client, 1000, seed=seed)
            gc.collect()
            sizes.append(psutil.Process().memory_info().rss)
    assert sizes[-1] - sizes[3] < 16 * 1024 * 1024, [size // 1024 for size in sizes]


@pytest.mark.soak
async def test_a_thousand_slow_connections_keep_nobody_out(redis: AsyncRedis, valkey_url: str) -> None:
    async with whole_api(redis, valkey_url, ApiSettings(token="own")) as (site, client):
        assert site.listener.port
        writers = await slow_ones(site.listener.port, 1000)
        for number in range(2000):
            assert (await post(client, "/events", cloudevent(f"e{number}"), CLOUDEVENT)).status_code == 202
            if number % 2 == 0 and number < len(writers) * 2:
                writers[number // 2].write(b"x")
        for writer in writers:
            writer.close()
        assert len(await site.door.ids()) == 2000
