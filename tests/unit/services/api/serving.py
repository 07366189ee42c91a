"""The API's routes behind a real HTTP listener on the session's Valkey; Prefect is away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from config.api import ApiSettings
from config.settings import ResumerSettings, Settings
from events.dead_letter import DeadLetter
from services.api.build import build_routers
from services.prefect_api.client import PrefectApi
from services.signals.submission import SignalSubmission
from services.store.access.tokens import AccessTokens
from services.store.connection import AsyncRedis, connect_sync
from services.store.signals.signals import SignalStore
from tests.unit.services.listeners.http.serving import LIMITS, Site, serving

NOW = datetime.now(UTC)


@asynccontextmanager
async def api(redis: AsyncRedis, valkey_url: str) -> AsyncIterator[tuple[Site, httpx.AsyncClient, SignalSubmission]]:
    async def no_prefect() -> PrefectApi:
        raise AssertionError("nothing here asks Prefect")

    settings = Settings()
    rq_redis = connect_sync(valkey_url, settings.redis)
    store = SignalStore(redis, ResumerSettings())
    submission = SignalSubmission(store=store, rq_redis=rq_redis, limits=LIMITS)
    routers = build_routers(redis, settings, submission, no_prefect, None)
    site = Site(redis, ApiSettings(token="own"), tokens=AccessTokens(redis), routers=routers)
    async with serving(site) as client:
        client.headers["authorization"] = "Bearer own"
        yield site, client, submission
    rq_redis.close()


def letter(number: int, **more: Any) -> DeadLetter:
    at = NOW + timedelta(seconds=number // 3)  # several fail at one moment
    fields = {"kind": "message", "code": "not-json", "reason": "no", "source": "shop", "raw": b'{"n": 1}'}
    return DeadLetter(id=f"letter{number:02}", first_failed=at, last_failed=at, **{**fields, **more})
